// Waiting that an AbortSignal ends.

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
