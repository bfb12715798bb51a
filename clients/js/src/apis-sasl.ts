// The APIs of SASL.
import { api, arr, bytes, i16, i64, nullableStr, obj, str } from './schema.js'

const errorMessage = nullableStr

export const SaslHandshake = api(17, 1, 0, obj({ mechanism: str }), obj({ errorCode: i16, mechanisms: arr(str) }))

export const SaslAuthenticate = api(36, 2, 1,
  obj({ authBytes: bytes }),
  obj({ errorCode: i16, errorMessage, authBytes: bytes, sessionLifetimeMs: i64 }))
