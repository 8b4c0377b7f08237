// Package rcu is read-copy-update with counted readers: a reader announces itself without writing
// to memory that other readers write to, and whoever has unlinked something learns when no reader
// can see it any more (McKenney's sleepable RCU).
//
//	cell := domain.Enter()
//	use(shared.Load())
//	cell.Exit()
//
//	old := shared.Swap(next)
//	domain.Synchronize() // or: mark := domain.Mark(), and later, domain.Passed(mark)
//	free(old)
package rcu
