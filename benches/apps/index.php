<?php
// The page of hello.wsgi.
header('Content-Type: text/plain; charset=utf-8');
header('Content-Length: 16');
header_remove('X-Powered-By');
echo "Hello from WSGI\n";
