// Gateways that answer what a test says, without a network.
import * as admin from '../src/apis-admin.js'
import * as group from '../src/apis-group.js'
import * as sasl from '../src/apis-sasl.js'
import * as core from '../src/apis.js'
import { Reader, Writer } from '../src/bytes.js'
import type { WebSocketConstructor } from '../src/index.js'
import { tags, type Api } from '../src/schema.js'

export const apis = [core, group, sasl, admin].flatMap(m => Object.values<any>(m)).filter((a): a is Api<any, any> => 'key' in a)

/** The bytes of an answer behind the correlation id. */
export function answerBytes(api: Api<any, any>, answer: unknown): Uint8Array {
  const w = new Writer(api.flexible)
  if (api.key !== 18) tags.write(w, [])
  api.response.write(w, answer)
  return w.done()
}

export interface FakeSocket {
  url: string
  /** Sends what is given as it is. */
  deliver(data: unknown): void
  lose(): void
}

/**
 * Each request is given to `answer`: its answer is what it gives, as an object or as bytes behind the correlation id;
 * none for undefined. Every version of every API is served.
 */
export function fakeGateway(answer: (api: Api<any, any>, request: any, socket: FakeSocket) => unknown): WebSocketConstructor {
  class Socket implements FakeSocket {
    private last = Promise.resolve()
    binaryType = ''
    onopen: ((e: unknown) => void) | null = null
    onmessage: ((e: unknown) => void) | null = null
    onclose: ((e: unknown) => void) | null = null
    onerror: ((e: unknown) => void) | null = null
    constructor(readonly url: string) {
      queueMicrotask(() => queueMicrotask(() => this.onopen?.({})))
    }
    close(): void {}
    lose(): void {
      this.onclose?.({ code: 1006 })
    }
    deliver(data: unknown): void {
      this.onmessage?.({ data })
    }
    send(frame: Uint8Array): void {
      this.last = this.last.then(() => this.work(frame)) // answers come in order
    }
    private async work(frame: Uint8Array): Promise<void> {
      const r = new Reader(frame)
      r.i32()
      const key = r.i16()
      r.i16()
      const id = r.i32()
      r.take(r.i16())
      const api = apis.find(a => a.key === key)!
      const body = new Reader(frame.subarray(r.at), api.flexible)
      tags.read(body)
      let said = await answer(api, api.request.read(body), this)
      if (said === undefined && key === 18) said = { errorCode: 0, apis: apis.map(a => ({ key: a.key, min: 0, max: 99 })), throttleMs: 0 }
      if (said === undefined) return
      const bytes = said instanceof Uint8Array ? said : answerBytes(api, said)
      const w = new Writer()
      w.i32(bytes.length + 4)
      w.i32(id)
      w.raw(bytes)
      this.deliver(w.done().slice().buffer)
    }
  }
  return Socket
}
