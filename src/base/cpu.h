/* Processors. */
#ifndef BASE_CPU_H
#define BASE_CPU_H

/** Processors that this thread may run on, at least 1. Any thread; a system call. */
unsigned cpu_usable(void);

#endif
