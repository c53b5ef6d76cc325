package exposition

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"github.com/klauspost/compress/flate"
)

// zipper puts blocks into one gzip member (RFC 1952). Each block is deflated by itself and ends on a byte (a sync flush), so
// the deflated form of a block that did not change is used again, and the check sum of the whole is combined of theirs.
type zipper struct {
	deflate *flate.Writer
	free    freelist
}

// member is the gzip form of the blocks, in parts.
func (z *zipper) member(blocks []*block) [][]byte {
	parts := [][]byte{{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}} // deflate, no name, no time, unknown system
	crc, size := uint32(0), 0
	for _, b := range blocks {
		if len(b.raw) == 0 {
			continue
		}
		if b.zipped == nil {
			z.fill(b)
		}
		parts = append(parts, b.zipped)
		crc = combine(crc, b.crc, b.shift)
		size += len(b.raw)
	}
	end := []byte{0x03, 0x00} // a last, empty block
	end = binary.LittleEndian.AppendUint32(end, crc)
	end = binary.LittleEndian.AppendUint32(end, uint32(size))
	return append(parts, end)
}

// fill deflates a block.
func (z *zipper) fill(b *block) {
	buf := bytes.NewBuffer(z.free.get(len(b.raw) / 8))
	if z.deflate == nil {
		z.deflate, _ = flate.NewWriter(buf, flate.BestSpeed) // fails on a bad level only
	} else {
		z.deflate.Reset(buf)
	}
	// A bytes.Buffer takes everything.
	_, _ = z.deflate.Write(b.raw)
	_ = z.deflate.Flush()
	b.zipped, b.crc, b.shift = buf.Bytes(), crc32.ChecksumIEEE(b.raw), shiftBy(len(b.raw))
}

// drop forgets the deflated form of a block that was rendered anew.
func (z *zipper) drop(b *block) {
	z.free.put(b.zipped)
	b.zipped = nil
}

// A CRC-32 is a polynomial over GF(2) modulo the IEEE one, its highest power in the lowest bit. The check sum of a then b is
// a's times x^(8 len b), plus b's (zlib's crc32_combine does it so).

// combine is the CRC-32 of a then b; shift is shiftBy of b's length.
func combine(a, b, shift uint32) uint32 { return times(shift, a) ^ b }

// shiftBy is x^(8n).
func shiftBy(n int) uint32 {
	product := uint32(1) << 31 // x^0
	power := uint32(1) << 30   // x^1
	for range 3 {
		power = times(power, power) // x^8
	}
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			product = times(power, product)
		}
		power = times(power, power)
	}
	return product
}

// times multiplies modulo the polynomial.
func times(a, b uint32) (product uint32) {
	for bit := uint32(1) << 31; bit != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
		}
		if b&1 != 0 {
			b = b>>1 ^ crc32.IEEE
		} else {
			b >>= 1
		}
	}
	return product
}
