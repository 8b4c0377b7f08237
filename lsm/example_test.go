package lsm_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"kvd/lsm"
	"kvd/lsm/vfs"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func must[T any](v T, err error) T {
	check(err)
	return v
}

// fruits opens a database in memory with a few pairs. Without FS the files are those of the
// operating system.
func fruits() *lsm.DB {
	db := must(lsm.Open("data", lsm.Options{FS: vfs.NewMem()}))
	for _, fruit := range []string{"apple", "banana", "cherry", "damson", "elder"} {
		check(db.Put([]byte(fruit), []byte("a "+fruit), lsm.NoSync))
	}
	return db
}

func Example() {
	db, err := lsm.Open("data", lsm.Options{FS: vfs.NewMem()})
	check(err)
	check(db.Put([]byte("apple"), []byte("red"), lsm.Sync))

	value, err := db.Get([]byte("apple"))
	fmt.Printf("%s, %v\n", value, err)

	check(db.Delete([]byte("apple"), lsm.Sync))
	_, err = db.Get([]byte("apple"))
	fmt.Println(errors.Is(err, lsm.ErrNotFound))

	check(db.Close())
	// Output:
	// red, <nil>
	// true
}

// The zero Durability is Sync. The later a class acknowledges, the more it survives.
func ExampleDurability() {
	db := fruits()
	key := []byte("apple")
	check(db.Put(key, []byte("survives a clean Close"), lsm.NoSync))
	check(db.Put(key, []byte("survives the death of the process"), lsm.Async))
	check(db.Put(key, []byte("survives a loss of power"), lsm.Sync))
	// An empty batch with Sync makes durable what was written before it.
	check(db.Put(key, []byte("red"), lsm.NoSync))
	check(db.Apply(new(lsm.Batch), lsm.Sync))
	fmt.Printf("%s\n", must(db.Get(key)))
	check(db.Close())
	// Output: red
}

func ExampleDB_Apply() {
	db := fruits()
	var b lsm.Batch
	b.Delete([]byte("apple"))
	b.Put([]byte("pear"), []byte("was an apple"))
	check(db.Apply(&b, lsm.Sync)) // both or neither
	_, err := db.Get([]byte("apple"))
	fmt.Println(err)
	fmt.Printf("%s\n", must(db.Get([]byte("pear"))))

	b.Reset() // its memory is used again
	b.Put(nil, []byte("a key must not be empty"))
	fmt.Println(db.Apply(&b, lsm.Sync))
	check(db.Close())
	// Output:
	// lsm: not found
	// was an apple
	// lsm: key of 0 bytes: must be 1 to 65536
}

// GetTo reads into memory that the caller has.
func ExampleDB_GetTo() {
	db := fruits()
	buf := make([]byte, 0, 64)
	for _, key := range []string{"apple", "banana"} {
		value, err := db.GetTo(buf[:0], []byte(key))
		check(err)
		fmt.Printf("%s\n", value)
	}
	check(db.Close())
	// Output:
	// a apple
	// a banana
}

func ExampleDB_NewIter() {
	db := fruits()
	it := db.NewIter(lsm.IterOptions{Lower: []byte("b"), Upper: []byte("e")})
	for ok := it.First(); ok; ok = it.Next() {
		fmt.Printf("%s: %s\n", it.Key(), it.Value())
	}
	for ok := it.Last(); ok; ok = it.Prev() {
		fmt.Printf("before the end: %s\n", it.Key())
	}
	if it.SeekGE([]byte("c")) {
		fmt.Printf("at or after c: %s\n", it.Key())
	}
	check(it.Close()) // and this is where an error of the moves comes out
	check(db.Close())
	// Output:
	// banana: a banana
	// cherry: a cherry
	// damson: a damson
	// before the end: damson
	// before the end: cherry
	// before the end: banana
	// at or after c: cherry
}

func ExampleIter_All() {
	db := fruits()
	it := db.NewIter(lsm.IterOptions{Upper: []byte("c")})
	for key, value := range it.All() {
		fmt.Printf("%s: %s\n", key, value)
	}
	check(it.Close())
	check(db.Close())
	// Output:
	// apple: a apple
	// banana: a banana
}

func ExampleDB_NewSnapshot() {
	db := fruits()
	before := db.NewSnapshot()
	check(db.Put([]byte("apple"), []byte("eaten"), lsm.NoSync))
	fmt.Printf("%s\n", must(before.Get([]byte("apple"))))
	fmt.Printf("%s\n", must(db.Get([]byte("apple"))))
	check(before.Close())
	check(db.Close())
	// Output:
	// a apple
	// eaten
}

func ExampleDB_Checkpoint() {
	disk := vfs.NewMem()
	db := must(lsm.Open("data", lsm.Options{FS: disk}))
	check(db.Put([]byte("apple"), []byte("red"), lsm.NoSync))
	check(db.Checkpoint("copy")) // shares the tables; costs next to nothing
	check(db.Put([]byte("apple"), []byte("green"), lsm.NoSync))

	copied := must(lsm.Open("copy", lsm.Options{FS: disk, ReadOnly: true}))
	fmt.Printf("%s\n", must(copied.Get([]byte("apple"))))
	fmt.Println(errors.Is(copied.Put([]byte("apple"), nil, lsm.Sync), lsm.ErrReadOnly))
	check(copied.Close())
	check(db.Close())
	// Output:
	// red
	// true
}

func ExampleSalvage() {
	disk := vfs.NewMem()
	db := must(lsm.Open("/fruits", lsm.Options{FS: disk}))
	check(db.Put([]byte("apple"), []byte("red"), lsm.Sync))
	check(db.Flush()) // a table
	check(db.Put([]byte("banana"), []byte("yellow"), lsm.Sync))
	check(db.Close())
	check(disk.Remove("/fruits/CURRENT")) // and the database does not open any more

	report := must(lsm.Salvage(context.Background(), disk, "/fruits", "/saved", lsm.SalvageOptions{}))
	fmt.Println("keys:", report.Keys, "losses:", len(report.Losses))
	for _, l := range report.Losses {
		fmt.Printf("%s: %s: keys %q to %q\n", l.File, l.Reason, l.From, l.To)
	}
	db = must(lsm.Open("/saved", lsm.Options{FS: disk}))
	fmt.Printf("%s\n", must(db.Get([]byte("banana"))))
	check(db.Close())
	// Output:
	// keys: 2 losses: 0
	// yellow
}
