/* The smallest CGI program: the page of cgi-bin/hello.wsgi, from C. */

#include <stdio.h>

int main(int argc, char **argv)
{
    if (argc > 1) {
        fprintf(stderr, "hello: unknown argument `%s`\n", argv[1]);
        return 2;
    }
    fputs("Status: 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello from WSGI\n", stdout);
    return fflush(stdout) == 0 ? 0 : 1;
}
