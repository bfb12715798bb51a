// SHA-256, SHA-512, HMAC and PBKDF2, for pages that are not a secure context and have no crypto.subtle. A chunk of its own.
import type { HashName, Hashes } from './hash.js'

// The constants are the first bits of the roots of the first primes (FIPS 180-4): pairs of 32 bits.
function roots(count: number, degree: number): Int32Array {
  const all = new Int32Array(count * 2)
  for (let n = 2, i = 0; i < count; n++) {
    let prime = true
    for (let d = 2; d * d <= n; d++) if (n % d === 0) prime = false
    if (!prime) continue
    const power = BigInt(n) << BigInt(64 * degree)
    let low = 0n
    let high = 1n << 70n
    while (high - low > 1n) {
      const middle = (low + high) >> 1n
      if (middle ** BigInt(degree) <= power) low = middle
      else high = middle
    }
    all[2 * i] = Number(BigInt.asIntN(32, low >> 32n))
    all[2 * i++ + 1] = Number(BigInt.asIntN(32, low))
  }
  return all
}
let K: Int32Array
let H: Int32Array

interface Sha {
  block: number
  size: number
  start(): Int32Array
  step(state: Int32Array, v: DataView, at: number): void
}

const w32 = new Int32Array(64)
const sha256: Sha = {
  block: 64,
  size: 32,
  start: () => H.filter((_, i) => i % 2 === 0),
  step(s, v, at) {
    const w = w32
    for (let i = 0; i < 64; i++) {
      if (i < 16) w[i] = v.getInt32(at + 4 * i)
      else {
        const x = w[i - 15]
        const y = w[i - 2]
        w[i] =
          (w[i - 16] + w[i - 7] + (((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3)) +
            (((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10))) | 0
      }
    }
    let [a, b, c, d, e, f, g, h] = s
    for (let i = 0; i < 64; i++) {
      const t =
        (h + (((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7))) + ((e & f) ^ (~e & g)) +
          K[2 * i] + w[i]) | 0
      const u = ((((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10))) + ((a & b) ^ (a & c) ^ (b & c))) | 0
      h = g
      g = f
      f = e
      e = (d + t) | 0
      d = c
      c = b
      b = a
      a = (t + u) | 0
    }
    ;[a, b, c, d, e, f, g, h].forEach((x, i) => (s[i] += x))
  },
}

// 64-bit words in two halves, high first.
const w64 = new Int32Array(160)
function add(...words: [number, number][]): [number, number] {
  let low = 0
  let high = 0
  for (const [h, l] of words) {
    low += l >>> 0
    high += h
  }
  return [(high + Math.floor(low / 2 ** 32)) | 0, low | 0]
}
const rot = (h: number, l: number, n: number): [number, number] =>
  n < 32 ? [(h >>> n) | (l << (32 - n)), (l >>> n) | (h << (32 - n))] : rot(l, h, n - 32)
const mix = (h: number, l: number, a: number, b: number, c: number, shift: boolean): [number, number] => {
  const x = rot(h, l, a)
  const y = rot(h, l, b)
  const z: [number, number] = shift ? [h >>> c, (l >>> c) | (h << (32 - c))] : rot(h, l, c)
  return [x[0] ^ y[0] ^ z[0], x[1] ^ y[1] ^ z[1]]
}
const sha512: Sha = {
  block: 128,
  size: 64,
  start: () => H.slice(),
  step(s, v, at) {
    const w = w64
    const word = (i: number): [number, number] => [w[2 * i], w[2 * i + 1]]
    for (let i = 0; i < 80; i++) {
      const [h, l] =
        i < 16
          ? [v.getInt32(at + 8 * i), v.getInt32(at + 8 * i + 4)]
          : add(word(i - 16), word(i - 7), mix(...word(i - 15), 1, 8, 7, true), mix(...word(i - 2), 19, 61, 6, true))
      w[2 * i] = h
      w[2 * i + 1] = l
    }
    let all = Array.from({ length: 8 }, (_, i): [number, number] => [s[2 * i], s[2 * i + 1]])
    for (let i = 0; i < 80; i++) {
      const [a, b, c, d, e, f, g, h] = all
      const t = add(h, mix(...e, 14, 18, 41, false), [(e[0] & f[0]) ^ (~e[0] & g[0]), (e[1] & f[1]) ^ (~e[1] & g[1])], [K[2 * i], K[2 * i + 1]], word(i))
      const u = add(mix(...a, 28, 34, 39, false), [(a[0] & b[0]) ^ (a[0] & c[0]) ^ (b[0] & c[0]), (a[1] & b[1]) ^ (a[1] & c[1]) ^ (b[1] & c[1])])
      all = [add(t, u), a, b, c, add(d, t), e, f, g]
    }
    all.forEach((x, i) => {
      const [h, l] = add(x, [s[2 * i], s[2 * i + 1]])
      s[2 * i] = h
      s[2 * i + 1] = l
    })
  },
}

/** The state behind whole blocks, before a message's last bytes. */
function finish(sha: Sha, state: Int32Array, message: Uint8Array, before: number): Uint8Array {
  const size = Math.ceil((message.length + 1 + sha.block / 8) / sha.block) * sha.block
  const padded = new Uint8Array(size)
  padded.set(message)
  padded[message.length] = 128
  const v = new DataView(padded.buffer)
  v.setUint32(size - 8, Math.floor(((before + message.length) * 8) / 2 ** 32))
  v.setUint32(size - 4, (before + message.length) * 8)
  const s = state.slice()
  for (let at = 0; at < size; at += sha.block) sha.step(s, v, at)
  const out = new Uint8Array(sha.size)
  const o = new DataView(out.buffer)
  for (let i = 0; i < sha.size / 4; i++) o.setInt32(4 * i, s[i])
  return out
}

/** By this file. Gives way now and then, so that a page stays alive. */
export function ownHashes(name: HashName): Hashes {
  K ??= roots(80, 3)
  H ??= roots(8, 2)
  const sha = name === 'SHA-512' ? sha512 : sha256
  const hash = (b: Uint8Array): Uint8Array => finish(sha, sha.start(), b, 0)
  const keyed = (key: Uint8Array): ((b: Uint8Array) => Uint8Array) => {
    if (key.length > sha.block) key = hash(key)
    const pad = (c: number): Int32Array => {
      const block = new Uint8Array(sha.block).fill(c)
      key.forEach((k, i) => (block[i] ^= k))
      const s = sha.start()
      sha.step(s, new DataView(block.buffer), 0)
      return s
    }
    const inner = pad(0x36)
    const outer = pad(0x5c)
    return b => finish(sha, outer, finish(sha, inner, b, sha.block), sha.block)
  }
  return {
    hash: async b => hash(b),
    hmac: async (key, b) => keyed(key)(b),
    pbkdf2: async (password, salt, iterations) => {
      const hmac = keyed(password)
      const first = new Uint8Array(salt.length + 4)
      first.set(salt)
      first[salt.length + 3] = 1
      let u = hmac(first)
      const out = u.slice()
      for (let i = 1; i < iterations; i++) {
        if (i % 1024 === 0) await new Promise(done => setTimeout(done))
        u = hmac(u)
        for (let k = 0; k < out.length; k++) out[k] ^= u[k]
      }
      return out
    },
  }
}
