/* The smallest FastCGI server: `null_fastcgi SOCKET PROCESSES`. The server waits for the end of a
 * request, reads only whether to keep the connection, and writes the same bytes each time. Its time
 * is the cost of measuring. */

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* The end of standard input: an empty record of type 5 of request 1. */
static const char end_of_input[8] = {1, 5, 0, 1, 0, 0, 0, 0};

#define PAGE \
    "Status: 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 16\r\n\r\nHello from WSGI\n"

static const char response[] = "\1\6\0\1\0\137\0\0" PAGE "\1\6\0\1\0\0\0\0" "\1\3\0\1\0\10\0\0\0\0\0\0\0\0\0";
_Static_assert(sizeof PAGE - 1 == 95, "the length in the record's header");

static void answer(int connection)
{
    char request[65536];
    size_t length = 0;
    for (;;) {
        ssize_t more = read(connection, request + length, sizeof request - length);
        if (more <= 0)
            return;
        length += more;
        if (length < 24 || memcmp(request + length - 8, end_of_input, 8) != 0)
            continue;
        if (write(connection, response, sizeof response) != sizeof response || !(request[10] & 1))
            return;
        length = 0;
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (argc != 3 || strlen(argv[1]) >= sizeof address.sun_path)
        return 2;
    strcpy(address.sun_path, argv[1]);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 128) != 0)
        return 1;
    for (int left = atoi(argv[2]); left > 0; left--)
        if (fork() == 0)
            for (;;) {
                int connection = accept(listener, NULL, NULL);
                answer(connection);
                close(connection);
            }
    while (wait(NULL) > 0)
        ;
    return 1;
}
