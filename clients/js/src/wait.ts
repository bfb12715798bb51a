// Waiting that an AbortSignal ends.
import { KafkaError } from './errors.js'

/** The promise, or the signal's reason as soon as it is aborted. */
export async function abortable<T>(promise: Promise<T>, signal?: AbortSignal): Promise<T> {
  if (!signal) return promise
  let stop!: () => void
  try {
    return await Promise.race([
      promise,
      new Promise<never>((_, reject) => {
        stop = () => reject(signal.reason)
        if (signal.aborted) stop()
        signal.addEventListener('abort', stop)
      }),
    ])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

/** Does it with a signal that is aborted by the one that is given, or with REQUEST_TIMED_OUT when the time is over. */
export async function within<T>(
  o: { signal?: AbortSignal; timeoutMs?: number },
  what: (signal?: AbortSignal) => Promise<T>,
): Promise<T> {
  const { signal, timeoutMs } = o
  signal?.throwIfAborted()
  if (timeoutMs === undefined) return what(signal)
  const both = new AbortController()
  const onAbort = (): void => both.abort(signal!.reason)
  signal?.addEventListener('abort', onAbort)
  const timer = setTimeout(() => both.abort(new KafkaError(7, `not done within ${timeoutMs} ms`)), timeoutMs)
  try {
    return await abortable(what(both.signal), both.signal)
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', onAbort)
  }
}

export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined
  try {
    await abortable(new Promise<void>(done => (timer = setTimeout(done, ms))), signal)
  } finally {
    clearTimeout(timer)
  }
}

/** Up to a second, longer with each attempt, and never the same for two clients. */
export const backoff = (attempt: number): number => Math.min(1000, 30 * 2 ** attempt) * (0.5 + Math.random() / 2)
