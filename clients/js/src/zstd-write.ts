// Zstandard, writing (RFC 8878): repetitions within each block, by the predefined tables, and literals as they are. A chunk
// of its own.
import { Output } from './codecs.js'
import { repeats } from './lz.js'
import { blockMax, highBit, kinds, llBase, llBits, mlBase, mlBits, type Fse } from './zstd.js'

/** Bits from the start to the end, the other way round than they are read. */
class Bits {
  private word = 0
  private n = 0
  constructor(private out: Output) {}
  put(v: number, bits: number): void {
    if (bits > 16) {
      this.put(v & 0xffff, 16)
      v >>>= 16
      bits -= 16
    }
    this.word |= v << this.n
    for (this.n += bits; this.n >= 8; this.n -= 8) {
      this.out.put([this.word & 255])
      this.word >>>= 8
    }
  }
  /** A one marks where the bits end. */
  end(): void {
    this.put(1, 1)
    if (this.n) this.out.put([this.word & 255])
  }
}

/** For each symbol and each state behind it, the state that reads as this symbol and leads there. */
function inverse(t: Fse): Uint8Array[] {
  const all: Uint8Array[] = []
  t.symbol.forEach((s, state) => {
    all[s] ??= new Uint8Array(t.symbol.length)
    all[s].fill(state, t.next[state], t.next[state] + (1 << t.bits[state]))
  })
  return all
}
let inverses: Uint8Array[][] | undefined

const codeOf = (bases: number[], n: number): number => {
  let code = Math.min(n, bases.length - 1)
  while (bases[code] > n) code--
  return code
}

/** A compressed block of b[from, to), without its header. */
function block(b: Uint8Array, from: number, to: number, out: Output): void {
  inverses ??= kinds.map(k => inverse(k[0]))
  const literals = new Output(to - from, to - from)
  const found: [literals: number, offset: number, length: number][] = []
  const rest = repeats(b, from, to, (start, at, distance, n) => {
    literals.put(b.subarray(start, at))
    found.push([at - start, distance + 3, n]) // below 4 are the offsets of before
  })
  literals.put(b.subarray(rest, to))
  const n = literals.at
  out.put(n < 32 ? [n << 3] : n < 4096 ? [((n << 4) | 4) & 255, n >> 4] : [((n << 4) | 12) & 255, (n >> 4) & 255, n >> 12])
  out.put(literals.done())
  const count = found.length
  out.put(count < 128 ? [count] : count < 0x7f00 ? [(count >> 8) | 128, count & 255] : [255, (count - 0x7f00) & 255, (count - 0x7f00) >> 8])
  if (!count) return
  out.put([0]) // all three tables are the predefined ones
  const bits = new Bits(out)
  const states = [0, 0, 0]
  for (let i = count - 1; i >= 0; i--) {
    const [ll, offset, ml] = found[i]
    const codes = [codeOf(llBase, ll), highBit(offset), codeOf(mlBase, ml)]
    for (const k of [1, 2, 0]) {
      const t = kinds[k][0]
      if (i === count - 1) states[k] = t.symbol.indexOf(codes[k])
      else {
        const state = inverses[k][codes[k]][states[k]]
        bits.put(states[k] - t.next[state], t.bits[state])
        states[k] = state
      }
    }
    bits.put(ll - llBase[codes[0]], llBits[codes[0]])
    bits.put(ml - mlBase[codes[2]], mlBits[codes[2]])
    bits.put(offset - (1 << codes[1]), codes[1])
  }
  for (const k of [2, 1, 0]) bits.put(states[k], kinds[k][0].log)
  bits.end()
}

/** One frame that says how long it is. */
export function writeZstd(b: Uint8Array): Uint8Array {
  const out = new Output(b.length + (b.length >> 12) + 64, b.length)
  const size = b.length
  out.put([0x28, 0xb5, 0x2f, 0xfd, 0xa0, size & 255, (size >> 8) & 255, (size >> 16) & 255, size >>> 24])
  for (let from = 0; ; from += blockMax) {
    const to = Math.min(size, from + blockMax)
    const last = to === size ? 1 : 0
    const packed = new Output(2 * blockMax, to - from)
    block(b, from, to, packed)
    const smaller = packed.at < to - from
    const n = smaller ? packed.at : to - from
    out.put([((n << 3) | (smaller ? 4 : 0) | last) & 255, (n >> 5) & 255, n >> 13])
    out.put(smaller ? packed.done() : b.subarray(from, to))
    if (last) return out.done()
  }
}
