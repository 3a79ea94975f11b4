/* Connect and close for some seconds, as an application with libmariadb does; prints how often. */
#include <mysql.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int count, char **words) {
    if (count != 4)
        return 1;
    double end = now() + atof(words[3]);
    long connections = 0;
    while (now() < end) {
        MYSQL *connection = mysql_init(NULL);
        if (!mysql_real_connect(connection, words[1], "app", words[2], NULL, 3306, NULL, 0)) {
            fprintf(stderr, "%s\n", mysql_error(connection));
            return 1;
        }
        mysql_close(connection);
        connections++;
    }
    printf("%ld\n", connections);
    return 0;
}
