// Writing of snappy and lz4, and the search for repetitions that zstd's writer shares. A chunk of its own.
import { Output } from './codecs.js'

/** What is called for each repetition: literals from `literals` to `at`, then `length` bytes again from `distance` back. */
export type Repeat = (literals: number, at: number, distance: number, length: number) => void

const table = new Int32Array(1 << 14)

/**
 * Finds repetitions of four bytes or more within [from, to), the first that a table of hashes has. The last five bytes
 * are literals and no repetition begins in the last twelve, as lz4 wants it. Gives where the last literals begin.
 */
export function repeats(b: Uint8Array, from: number, to: number, put: Repeat): number {
  table.fill(-1)
  let literals = from
  for (let at = from; at < to - 12; ) {
    const h = Math.imul(b[at] | (b[at + 1] << 8) | (b[at + 2] << 16) | (b[at + 3] << 24), 0x9e3779b1) >>> 18
    const seen = table[h]
    table[h] = at
    let n = 0
    if (seen >= 0) while (n < to - 5 - at && b[seen + n] === b[at + n]) n++
    if (n > 3) {
      put(literals, at, at - seen, n)
      literals = at += n
    } else at += 1 + ((at - literals) >> 6) // the longer nothing repeats, the faster on
  }
  return literals
}

const piece = 1 << 16
// What does not get smaller gets larger by less than this.
const room = (n: number): Output => new Output(n + (n >> 5) + 64, n)

/** One block, without a frame, as Java's clients of today and most others write it. */
export function writeSnappy(b: Uint8Array): Uint8Array {
  const out = room(b.length)
  const literal = (from: number, to: number): void => {
    const n = to - from - 1
    if (n < 0) return
    out.put(n < 60 ? [n << 2] : n < 256 ? [60 << 2, n] : [61 << 2, n & 255, n >> 8])
    out.put(b.subarray(from, to))
  }
  let size = b.length
  for (; size > 127; size = Math.floor(size / 128)) out.put([(size & 127) | 128])
  out.put([size])
  for (let from = 0; from < b.length; from += piece) {
    const to = Math.min(b.length, from + piece)
    const rest = repeats(b, from, to, (literals, at, distance, n) => {
      literal(literals, at)
      for (; n > 0; n -= 64) out.put([((Math.min(n, 64) - 1) << 2) | 2, distance & 255, distance >> 8])
    })
    literal(rest, to)
  }
  return out.done()
}

/** One frame of independent blocks of at most 64 KiB, without checksums: the batch has its own. */
export function writeLz4(b: Uint8Array): Uint8Array {
  const out = room(b.length)
  out.put([4, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82]) // the last is the checksum of this header
  const head = (at: number, n: number, raw: number): void => out.bytes.set([n & 255, (n >> 8) & 255, n >> 16, raw], at)
  for (let from = 0; from < b.length; from += piece) {
    const to = Math.min(b.length, from + piece)
    const start = out.at
    out.put([0, 0, 0, 0])
    const more = (n: number): void => {
      for (; n >= 255; n -= 255) out.put([255])
      out.put([n])
    }
    const sequence = (literals: number, at: number, distance: number, length: number): void => {
      const n = at - literals
      out.put([(Math.min(n, 15) << 4) | Math.min(length, 15)])
      if (n >= 15) more(n - 15)
      out.put(b.subarray(literals, at))
      if (!distance) return
      out.put([distance & 255, distance >> 8])
      if (length >= 15) more(length - 15)
    }
    sequence(repeats(b, from, to, (literals, at, distance, n) => sequence(literals, at, distance, n - 4)), to, 0, 0)
    const n = out.at - start - 4
    if (n < to - from) head(start, n, 0)
    else {
      head(start, to - from, 0x80)
      out.at = start + 4
      out.put(b.subarray(from, to))
    }
  }
  out.put([0, 0, 0, 0])
  return out.done()
}
