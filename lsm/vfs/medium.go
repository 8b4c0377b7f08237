package vfs

// MediumAlign is the unit of reads from a file that [OpenMedium] opened.
const MediumAlign = 4096

// OpenMedium opens an existing file to see what is on the disk, as opposed to what the operating
// system remembers of it: reads go past its cache, which they neither ask nor fill nor empty. It is
// for looking for damage. Offset, length and address of a read should be multiples of MediumAlign,
// as those of a large slice are; a read across the end of the file returns what there is. Where
// there is no such way, and for any other read and any file system but OS, it is an Open.
func OpenMedium(fsys FS, name string) (File, error) {
	if fsys == OS {
		return openMedium(name)
	}
	return fsys.Open(name)
}
