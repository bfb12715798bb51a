// SHA-2, HMAC and PBKDF2 by the platform where it gives them: not to a page that is not a secure context.
export type HashName = 'SHA-1' | 'SHA-256' | 'SHA-512'

export interface Hashes {
  hash(b: Uint8Array): Promise<Uint8Array>
  hmac(key: Uint8Array, b: Uint8Array): Promise<Uint8Array>
  pbkdf2(password: Uint8Array, salt: Uint8Array, iterations: number): Promise<Uint8Array>
}

/** By the platform. */
export function subtleHashes(name: HashName, subtle: SubtleCrypto): Hashes {
  const bits = { 'SHA-1': 160, 'SHA-256': 256, 'SHA-512': 512 }[name]
  const data = (b: Uint8Array): BufferSource => b as BufferSource
  return {
    hash: async b => new Uint8Array(await subtle.digest(name, data(b))),
    hmac: async (key, b) => {
      const k = await subtle.importKey('raw', data(key), { name: 'HMAC', hash: name }, false, ['sign'])
      return new Uint8Array(await subtle.sign('HMAC', k, data(b)))
    },
    pbkdf2: async (password, salt, iterations) => {
      const k = await subtle.importKey('raw', data(password), 'PBKDF2', false, ['deriveBits'])
      return new Uint8Array(await subtle.deriveBits({ name: 'PBKDF2', hash: name, salt: data(salt), iterations }, k, bits))
    },
  }
}

/** What there is. */
export const hashes = async (name: HashName): Promise<Hashes> =>
  globalThis.crypto?.subtle ? subtleHashes(name, crypto.subtle) : (await import('./sha2.js')).ownHashes(name)
