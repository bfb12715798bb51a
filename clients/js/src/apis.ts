// The APIs that every client speaks, each in one version. Names are Kafka's, in the spelling of JavaScript. Those of groups,
// administration and SASL have files of their own, so that they load with the modules that need them.
import { api, arr, bool, i16, i32, i64, i8, nullableArr, nullableBytes, nullableStr, obj, str, uuid } from './schema.js'

const errorMessage = nullableStr
const topicPartitions = obj({ topic: str, partitions: arr(i32) })

export const Produce = api(0, 9, 1,
  obj({
    transactionalId: nullableStr, acks: i16, timeoutMs: i32,
    topics: arr(obj({ topic: str, partitions: arr(obj({ partition: i32, records: nullableBytes })) })),
  }),
  obj({
    topics: arr(obj({
      topic: str,
      partitions: arr(obj({
        partition: i32, errorCode: i16, baseOffset: i64, logAppendTime: i64, logStartOffset: i64,
        recordErrors: arr(obj({ index: i32, message: nullableStr })), errorMessage,
      })),
    })),
    throttleMs: i32,
  }))

export const Fetch = api(1, 12, 1,
  obj({
    replicaId: i32, maxWaitMs: i32, minBytes: i32, maxBytes: i32, isolationLevel: i8, sessionId: i32, sessionEpoch: i32,
    topics: arr(obj({
      topic: str,
      partitions: arr(obj({
        partition: i32, currentLeaderEpoch: i32, fetchOffset: i64, lastFetchedEpoch: i32, logStartOffset: i64, maxBytes: i32,
      })),
    })),
    forgotten: arr(topicPartitions), rackId: str,
  }),
  obj({
    throttleMs: i32, errorCode: i16, sessionId: i32,
    topics: arr(obj({
      topic: str,
      partitions: arr(obj({
        partition: i32, errorCode: i16, highWatermark: i64, lastStableOffset: i64, logStartOffset: i64,
        abortedTransactions: nullableArr(obj({ producerId: i64, firstOffset: i64 })),
        preferredReadReplica: i32, records: nullableBytes,
      })),
    })),
  }))

export const ListOffsets = api(2, 7, 1,
  obj({
    replicaId: i32, isolationLevel: i8,
    topics: arr(obj({ topic: str, partitions: arr(obj({ partition: i32, currentLeaderEpoch: i32, timestamp: i64 })) })),
  }),
  obj({
    throttleMs: i32,
    topics: arr(obj({
      topic: str, partitions: arr(obj({ partition: i32, errorCode: i16, timestamp: i64, offset: i64, leaderEpoch: i32 })),
    })),
  }))

export const Metadata = api(3, 12, 1,
  obj({
    topics: nullableArr(obj({ topicId: uuid, topic: nullableStr })),
    allowAutoTopicCreation: bool, includeTopicAuthorizedOperations: bool,
  }),
  obj({
    throttleMs: i32,
    brokers: arr(obj({ nodeId: i32, host: str, port: i32, rack: nullableStr })),
    clusterId: nullableStr, controllerId: i32,
    topics: arr(obj({
      errorCode: i16, topic: nullableStr, topicId: uuid, isInternal: bool,
      partitions: arr(obj({
        errorCode: i16, partition: i32, leaderId: i32, leaderEpoch: i32,
        replicas: arr(i32), isr: arr(i32), offlineReplicas: arr(i32),
      })),
      authorizedOperations: i32,
    })),
  }))

export const ApiVersions = api(18, 3, 1,
  obj({ softwareName: str, softwareVersion: str }),
  obj({ errorCode: i16, apis: arr(obj({ key: i16, min: i16, max: i16 })), throttleMs: i32 }))

export const InitProducerId = api(22, 4, 1,
  obj({ transactionalId: nullableStr, transactionTimeoutMs: i32, producerId: i64, producerEpoch: i16 }),
  obj({ throttleMs: i32, errorCode: i16, producerId: i64, producerEpoch: i16 }))
