// CRC-32C (Castagnoli), eight bytes at a time.
const tables: Int32Array[] = []

export function crc32c(b: Uint8Array): number {
  if (!tables.length) {
    for (let k = 0; k < 8; k++) tables.push(new Int32Array(256))
    for (let i = 0; i < 256; i++) {
      let c = i
      for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1
      tables[0][i] = c
    }
    for (let k = 1; k < 8; k++) {
      for (let i = 0; i < 256; i++) tables[k][i] = (tables[k - 1][i] >>> 8) ^ tables[0][tables[k - 1][i] & 255]
    }
  }
  const [t0, t1, t2, t3, t4, t5, t6, t7] = tables
  let c = -1
  let i = 0
  for (const end = b.length - 7; i < end; i += 8) {
    c ^= b[i] | (b[i + 1] << 8) | (b[i + 2] << 16) | (b[i + 3] << 24)
    c =
      t7[c & 255] ^ t6[(c >>> 8) & 255] ^ t5[(c >>> 16) & 255] ^ t4[c >>> 24] ^
      t3[b[i + 4]] ^ t2[b[i + 5]] ^ t1[b[i + 6]] ^ t0[b[i + 7]]
  }
  for (; i < b.length; i++) c = (c >>> 8) ^ t0[(c ^ b[i]) & 255]
  return ~c >>> 0
}
