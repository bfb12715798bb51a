'use strict';
// @confluentinc/kafka-javascript, librdkafka for Node.js, in the interop test,
// through its promises, which are those of kafkajs.

const confluent = require('@confluentinc/kafka-javascript');
const line = require('../kafkajs/line.js');

const { Kafka, CompressionTypes, logLevel } = confluent.KafkaJS;
const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.SNAPPY, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD };

const toStderr = (level) => (message, extra) => console.error(level, message, JSON.stringify(extra));
const logger = { info() {}, debug() {}, warn: toStderr('warn'), error: toStderr('error'), namespace: () => logger, setLogLevel() {} };
const kafka = new Kafka({ kafkaJS: { brokers: line.bootstrap, logLevel: logLevel.WARN, logger } });

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

async function consume(groupId, done) {
  const consumer = kafka.consumer({ kafkaJS: { groupId, fromBeginning: true } });
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
line.go({ create, produce, ...line.consuming(consume) });
