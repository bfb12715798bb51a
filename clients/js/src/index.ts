/** A Kafka client over WebSocket, for Trimaran's gateways. See README.md. */
export { Client, type CallOptions, type ClientEvent, type ClientOptions, type Position } from './client.js'
export { Producer, type ProducerOptions, type Written } from './producer.js'
export type { Isolation, TailOptions } from './tail.js'
export type { ConsumedRecord, Header, ProducedRecord } from './records.js'
export { KafkaError, errorName } from './errors.js'
export type { Compression } from './compression.js'
export type { Sasl } from './sasl.js'
export type { WebSocketConstructor, WebSocketLike } from './connection.js'
