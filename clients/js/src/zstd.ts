export function zstd(b: Uint8Array, max: number): Uint8Array { throw new Error('later' + b + max) }
