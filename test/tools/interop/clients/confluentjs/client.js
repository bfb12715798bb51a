'use strict';
// @confluentinc/kafka-javascript, librdkafka for Node.js, in the interop test,
// through its promises, which are those of kafkajs.

const confluent = require('@confluentinc/kafka-javascript');
const line = require('../kafkajs/line.js');

const { Kafka, CompressionTypes, logLevel } = confluent.KafkaJS;
const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.SNAPPY, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD };

let complain = () => {};
const toStderr = (level) => (message, extra) => {
  console.error(level, message, JSON.stringify(extra));
  complain(message);
};
const logger = { info() {}, debug() {}, warn: toStderr('warn'), error: toStderr('error'), namespace: () => logger, setLogLevel() {} };
// security is kafkajs's way to say it; the file of the CA is librdkafka's.
function security() {
  if (!line.login) return {};
  const { mechanism, user, password, token } = line.login;
  return {
    ssl: true,
    sasl: mechanism === 'OAUTHBEARER'
      ? { mechanism: 'oauthbearer', oauthBearerProvider: async () => ({ value: token, principal: user, lifetime: Date.now() + 3600_000 }) }
      : { mechanism: mechanism.toLowerCase(), username: user, password },
  };
}

const kafka = new Kafka({
  kafkaJS: { ...security(), brokers: line.bootstrap, logLevel: logLevel.WARN, logger },
  ...(line.login ? { 'ssl.ca.location': line.login.ca } : {}),
});

async function login() {
  // librdkafka goes on trying, and tells each time; connect() fails later, with no broker to be had.
  const refused = new Promise((_, reject) => { complain = (text) => /SASL authentication error/.test(text) && reject(new Error(text)); });
  const admin = kafka.admin();
  await line.logIn(() => Promise.race([refused, admin.connect().then(() => admin.listTopics())]), (e) => /SASL authentication error/.test(e));
  process.exit(0);
}

async function create() {
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic: line.topic, numPartitions: Number(line.argument), replicationFactor: 3 }] });
  await admin.disconnect();
}

async function produce() {
  // A librdkafka that was built where libzstd was not to be had is without it.
  if (line.argument === 'zstd' && !confluent.features.includes('zstd')) {
    line.say('unsupported librdkafka was built without zstd on this machine');
    return;
  }
  const producer = kafka.producer({ kafkaJS: { compression: codecs[line.argument] } });
  await producer.connect();
  let n = 0;
  for await (const messages of line.records()) {
    await producer.send({ topic: line.topic, messages });
    n += messages.length;
  }
  await producer.flush();
  await producer.disconnect();
  line.say(`produced ${n}`);
}

async function transact() {
  const producer = kafka.producer({ kafkaJS: { transactionalId: line.argument, transactionTimeout: 30_000 } });
  await producer.connect();
  await line.transact(() => producer.transaction());
  await producer.disconnect();
}

async function consume(groupId, done) {
  const consumer = kafka.consumer({ kafkaJS: { groupId, fromBeginning: true, readUncommitted: line.step !== 'committed' } });
  await consumer.connect();
  await consumer.subscribe({ topics: [line.topic] });
  await consumer.run({
    eachMessage: async ({ partition, message }) => {
      line.show(partition, message);
      done();
    },
  });
  return consumer;
}

// Its consumer always has a group, so reading goes through one of its own.
line.go({ login, create, produce, transact, ...line.consuming(consume) });
