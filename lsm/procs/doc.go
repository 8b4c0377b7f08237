// Package procs has goroutines run on as many processors as the load needs, and on no more.
//
// A server of small requests hands each of them from goroutine to goroutine: who reads packets, who
// keeps the connection, who reads the lane, who writes answers. While a processor is idle, Go wakes
// a thread for nearly every such step, which looks around for work and finds the goroutine gone:
// two system calls, an interrupt of another core, tens of microseconds of looking, and caches that
// are cold when the thread did get the goroutine. With no processor idle, a step is a change of
// stack. So [Follow] measures the processor time of the process and sets GOMAXPROCS to what it
// needs: one for a server that is busy for half of the time. What a durable PUT of one of 16
// callers costs a kvd server fell from 16.6 to 10.6 us of processor time, and the callers, on the
// same two cores, got a fifth more.
//
// Fewer processors have a price, and each part of it has its remedy:
//
//   - What computes for long is in the way of the rest, for 10 ms, until the scheduler takes the
//     processor away. So work of that kind is announced ([Begin], [End]), and gets all processors
//     before it begins. What is not announced is noticed by the looks, within some 50 ms.
//   - A system call that blocks keeps its processor until Go's monitor takes it away. Package vfs,
//     which knows which are likely to block, gives it up before those ([Now], [Alone]).
//   - More load needs more. At 90 % of what there is, when looks come late because others have the
//     processor, and where goroutines wait for a disk together, more than a thousand times a second
//     ([Waited]), all are given at once, or when a garbage collection ends; to take some away again
//     needs 150 ms.
//
// A processor that is spared may be used for waiting ([Idle], [Polled]): package netquic looks for
// packets on the one that is left, so that it never sleeps, while threads of the kernel, and other
// programs, have the rest.
//
// It is a matter of the whole process, hence package variables, and hence only for programs: kvd
// calls Follow, a program that embeds the engine decides for itself. Without Follow, Begin and End
// count and do nothing. A [Yielder] is for anybody: background work that offers its processor to
// others, and gets its own turns.
package procs
