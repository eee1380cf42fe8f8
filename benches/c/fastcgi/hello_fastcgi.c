/* The page of apps/hello.wsgi from C, by libfcgi: `hello_fastcgi SOCKET PROCESSES`. Each process
 * serves one connection at a time. */

#include <fcgiapp.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const char response[] =
    "Status: 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 16\r\n\r\nHello from WSGI\n";

static void serve(int listener)
{
    FCGX_Request request;
    FCGX_InitRequest(&request, listener, 0);
    while (FCGX_Accept_r(&request) == 0) {
        FCGX_PutStr(response, sizeof response - 1, request.out);
        FCGX_Finish_r(&request);
    }
    _exit(1);
}

int main(int argc, char **argv)
{
    if (argc != 3 || FCGX_Init() != 0)
        return 2;
    int listener = FCGX_OpenSocket(argv[1], 128);
    if (listener < 0)
        return 1;
    for (int left = atoi(argv[2]); left > 0; left--)
        if (fork() == 0)
            serve(listener);
    while (wait(NULL) > 0)
        ;
    return 1;
}
