/* The time of the day is an hour later than the kernel's.

   Loaded with LD_PRELOAD.  To a program that computes when to wake up from the time of
   the day, this is a clock that was set back by an hour meanwhile.
*/
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
  int result = syscall(SYS_clock_gettime, clock, now);
  if (clock == CLOCK_REALTIME) now->tv_sec += 3600;
  return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  int result = syscall(SYS_gettimeofday, now, zone);
  now->tv_sec += 3600;
  return result;
}
