'use strict';
// kafkajs in the interop test.

const fs = require('fs');
const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = require('kafkajs');
const SnappyCodec = require('kafkajs-snappy');
const LZ4Codec = require('kafkajs-lz4');
const zstd = require('@bokuweb/zstd-wasm');
const line = require('./line.js');

// kafkajs has gzip itself; the others are plugged in, as its documentation says.
CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec;
CompressionCodecs[CompressionTypes.LZ4] = new LZ4Codec().codec;
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from(zstd.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(zstd.decompress(buffer)),
});
const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD };

function security() {
  if (!line.login) return {};
  const { mechanism, user, password, token, ca } = line.login;
  return {
    ssl: { ca: [fs.readFileSync(ca)] },
    sasl: mechanism === 'OAUTHBEARER'
      ? { mechanism: 'oauthbearer', oauthBearerProvider: async () => ({ value: token }) }
      : { mechanism: mechanism.toLowerCase(), username: user, password },
  };
}

const kafka = new Kafka({ ...security(), brokers: line.bootstrap, logLevel: logLevel.WARN, logCreator: () => (e) => console.error(e.level, e.namespace, JSON.stringify(e.log)) });

async function login() {
  const admin = kafka.admin();
  // A token that is refused it takes for one that is not, and its connection is ended at the next request.
  const refusals = ['KafkaJSSASLAuthenticationError', ...(line.login.mechanism === 'OAUTHBEARER' ? ['KafkaJSConnectionClosedError'] : [])];
  await line.logIn(async () => {
    await admin.connect();
    await admin.listTopics();
  }, (e) => refusals.includes(e.name) || refusals.includes(e.cause && e.cause.name));
  process.exit(0);
}

async function create() {
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic: line.topic, numPartitions: Number(line.argument), replicationFactor: 3 }] });
  await admin.disconnect();
}

async function produce() {
  await zstd.init();
  // Its retries, five, last for some seconds.
  const producer = kafka.producer({ retry: { retries: 20 } });
  await producer.connect();
  let n = 0;
  for await (const messages of line.records()) {
    await producer.send({ topic: line.topic, compression: codecs[line.argument], messages });
    n += messages.length;
  }
  await producer.disconnect();
  line.say(`produced ${n}`);
}

async function transact() {
  const producer = kafka.producer({ transactionalId: line.argument, transactionTimeout: 30_000, idempotent: true, maxInFlightRequests: 1, retry: { retries: 20 } });
  await producer.connect();
  await line.transact(() => producer.transaction());
  await producer.disconnect();
}

async function consume(groupId, done) {
  await zstd.init();
  const consumer = kafka.consumer({ groupId, readUncommitted: line.step !== 'committed', retry: { retries: 20 } });
  await consumer.connect();
  await consumer.subscribe({ topics: [line.topic], fromBeginning: true });
  await consumer.run({
    eachBatch: async ({ batch, resolveOffset, heartbeat, isRunning, isStale, commitOffsetsIfNecessary }) => {
      for (const m of batch.messages) {
        if (!isRunning() || isStale()) break;
        line.show(batch.partition, m);
        done(1);
        resolveOffset(m.offset);
      }
      await commitOffsetsIfNecessary();
      await heartbeat();
    },
  });
  return consumer;
}

// kafkajs has no consumer without a group, so reading goes through one of its own.
line.go({ login, create, produce, transact, ...line.consuming(consume) });
