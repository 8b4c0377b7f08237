package vfs

import "io"

// faultFile is an open file of a Fault.
type faultFile struct {
	f    *Fault
	file File
	name string
}

func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	short, err := f.f.before(Op{Kind: OpReadAt, Name: f.name, Off: off, Len: int64(len(p))})
	if err == nil {
		return f.file.ReadAt(p, off)
	}
	return partial(f.file.ReadAt, p[:short], off, err)
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	short, err := f.f.before(Op{Kind: OpWriteAt, Name: f.name, Off: off, Len: int64(len(p))})
	if err == nil {
		return f.file.WriteAt(p, off)
	}
	return partial(f.file.WriteAt, p[:short], off, err)
}

// partial transfers p and fails with err, or with the transfer's own error if that comes first.
func partial(
	transfer func([]byte, int64) (int, error), p []byte, off int64, err error,
) (int, error) {
	if len(p) == 0 {
		return 0, err
	}
	n, transferErr := transfer(p, off)
	if transferErr != nil {
		err = transferErr
	}
	return n, err
}

func (f *faultFile) Size() (int64, error) {
	if _, err := f.f.before(Op{Kind: OpFileSize, Name: f.name}); err != nil {
		return 0, err
	}
	return f.file.Size()
}

func (f *faultFile) Truncate(size int64) error {
	if _, err := f.f.before(Op{Kind: OpTruncate, Name: f.name, Len: size}); err != nil {
		return err
	}
	return f.file.Truncate(size)
}

func (f *faultFile) Sync() error {
	if _, err := f.f.before(Op{Kind: OpSync, Name: f.name}); err != nil {
		return loseFile(f.file, err)
	}
	return f.file.Sync()
}

func (f *faultFile) Close() error {
	return closeAs(f.f, Op{Kind: OpClose, Name: f.name}, f.file)
}

// faultLock is a held lock of a Fault.
type faultLock struct {
	f    *Fault
	lock io.Closer
	name string
}

func (l *faultLock) Close() error {
	return closeAs(l.f, Op{Kind: OpUnlock, Name: l.name}, l.lock)
}

func closeAs(f *Fault, o Op, c io.Closer) error {
	_, err := f.before(o)
	if closeErr := c.Close(); err == nil {
		err = closeErr
	}
	return err
}
