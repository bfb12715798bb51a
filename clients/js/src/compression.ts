// What batches are compressed with. Each codec is loaded when it is needed.
import { KafkaError } from './errors.js'

export type Compression = 'none' | 'gzip' | 'snappy' | 'lz4' | 'zstd'
export const codecNames: Compression[] = ['none', 'gzip', 'snappy', 'lz4', 'zstd']

/** A chunk, or NETWORK_EXCEPTION where it cannot be loaded now. */
export const loaded = <T>(chunk: Promise<T>): Promise<T> =>
  chunk.catch(cause => {
    throw new KafkaError(13, 'a codec cannot be loaded', { cause })
  })

/** What decompresses, and compresses. */
export const codecs = (): Promise<typeof import('./codecs.js')> => loaded(import('./codecs.js'))
