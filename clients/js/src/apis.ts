// The APIs that the client speaks, each in one version. Names are Kafka's, in the spelling of JavaScript.
import { api, arr, bool, bytes, i16, i32, i64, i8, nullableArr, nullableBytes, nullableStr, obj, str, uuid, type Api } from './schema.js'

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

export const OffsetCommit = api(8, 8, 1,
  obj({
    groupId: str, generationId: i32, memberId: str, groupInstanceId: nullableStr,
    topics: arr(obj({
      topic: str, partitions: arr(obj({ partition: i32, offset: i64, leaderEpoch: i32, metadata: nullableStr })),
    })),
  }),
  obj({ throttleMs: i32, topics: arr(obj({ topic: str, partitions: arr(obj({ partition: i32, errorCode: i16 })) })) }))

export const OffsetFetch = api(9, 7, 1,
  obj({ groupId: str, topics: nullableArr(topicPartitions), requireStable: bool }),
  obj({
    throttleMs: i32,
    topics: arr(obj({
      topic: str,
      partitions: arr(obj({ partition: i32, offset: i64, leaderEpoch: i32, metadata: nullableStr, errorCode: i16 })),
    })),
    errorCode: i16,
  }))

export const FindCoordinator = api(10, 3, 1,
  obj({ key: str, keyType: i8 }),
  obj({ throttleMs: i32, errorCode: i16, errorMessage, nodeId: i32, host: str, port: i32 }))

export const JoinGroup = api(11, 7, 1,
  obj({
    groupId: str, sessionTimeoutMs: i32, rebalanceTimeoutMs: i32, memberId: str, groupInstanceId: nullableStr,
    protocolType: str, protocols: arr(obj({ name: str, metadata: bytes })),
  }),
  obj({
    throttleMs: i32, errorCode: i16, generationId: i32, protocolType: nullableStr, protocolName: nullableStr,
    leader: str, memberId: str,
    members: arr(obj({ memberId: str, groupInstanceId: nullableStr, metadata: bytes })),
  }))

export const Heartbeat = api(12, 4, 1,
  obj({ groupId: str, generationId: i32, memberId: str, groupInstanceId: nullableStr }),
  obj({ throttleMs: i32, errorCode: i16 }))

export const LeaveGroup = api(13, 4, 1,
  obj({ groupId: str, members: arr(obj({ memberId: str, groupInstanceId: nullableStr })) }),
  obj({ throttleMs: i32, errorCode: i16, members: arr(obj({ memberId: str, groupInstanceId: nullableStr, errorCode: i16 })) }))

export const SyncGroup = api(14, 5, 1,
  obj({
    groupId: str, generationId: i32, memberId: str, groupInstanceId: nullableStr,
    protocolType: nullableStr, protocolName: nullableStr,
    assignments: arr(obj({ memberId: str, assignment: bytes })),
  }),
  obj({ throttleMs: i32, errorCode: i16, protocolType: nullableStr, protocolName: nullableStr, assignment: bytes }))

export const DescribeGroups = api(15, 5, 1,
  obj({ groups: arr(str), includeAuthorizedOperations: bool }),
  obj({
    throttleMs: i32,
    groups: arr(obj({
      errorCode: i16, groupId: str, state: str, protocolType: str, protocol: str,
      members: arr(obj({
        memberId: str, groupInstanceId: nullableStr, clientId: str, clientHost: str, metadata: bytes, assignment: bytes,
      })),
      authorizedOperations: i32,
    })),
  }))

export const ListGroups = api(16, 4, 1,
  obj({ states: arr(str) }),
  obj({ throttleMs: i32, errorCode: i16, groups: arr(obj({ groupId: str, protocolType: str, state: str })) }))

export const SaslHandshake = api(17, 1, 0, obj({ mechanism: str }), obj({ errorCode: i16, mechanisms: arr(str) }))

export const ApiVersions = api(18, 3, 1,
  obj({ softwareName: str, softwareVersion: str }),
  obj({ errorCode: i16, apis: arr(obj({ key: i16, min: i16, max: i16 })), throttleMs: i32 }))

export const CreateTopics = api(19, 7, 1,
  obj({
    topics: arr(obj({
      topic: str, partitions: i32, replicationFactor: i16,
      assignments: arr(obj({ partition: i32, replicas: arr(i32) })),
      configs: arr(obj({ name: str, value: nullableStr })),
    })),
    timeoutMs: i32, validateOnly: bool,
  }),
  obj({
    throttleMs: i32,
    topics: arr(obj({
      topic: str, topicId: uuid, errorCode: i16, errorMessage, partitions: i32, replicationFactor: i16,
      configs: nullableArr(obj({ name: str, value: nullableStr, readOnly: bool, source: i8, isSensitive: bool })),
    })),
  }))

export const DeleteTopics = api(20, 5, 1,
  obj({ topics: arr(str), timeoutMs: i32 }),
  obj({ throttleMs: i32, topics: arr(obj({ topic: str, errorCode: i16, errorMessage })) }))

export const DeleteRecords = api(21, 2, 1,
  obj({ topics: arr(obj({ topic: str, partitions: arr(obj({ partition: i32, offset: i64 })) })), timeoutMs: i32 }),
  obj({
    throttleMs: i32,
    topics: arr(obj({ topic: str, partitions: arr(obj({ partition: i32, lowWatermark: i64, errorCode: i16 })) })),
  }))

export const InitProducerId = api(22, 4, 1,
  obj({ transactionalId: nullableStr, transactionTimeoutMs: i32, producerId: i64, producerEpoch: i16 }),
  obj({ throttleMs: i32, errorCode: i16, producerId: i64, producerEpoch: i16 }))

const aclFilter = obj({
  resourceType: i8, resourceName: nullableStr, patternType: i8, principal: nullableStr, host: nullableStr, operation: i8,
  permissionType: i8,
})
export const DescribeAcls = api(29, 2, 1, aclFilter,
  obj({
    throttleMs: i32, errorCode: i16, errorMessage,
    resources: arr(obj({
      resourceType: i8, resourceName: str, patternType: i8,
      acls: arr(obj({ principal: str, host: str, operation: i8, permissionType: i8 })),
    })),
  }))
export const CreateAcls = api(30, 2, 1,
  obj({
    creations: arr(obj({
      resourceType: i8, resourceName: str, patternType: i8, principal: str, host: str, operation: i8, permissionType: i8,
    })),
  }),
  obj({ throttleMs: i32, results: arr(obj({ errorCode: i16, errorMessage })) }))
export const DeleteAcls = api(31, 2, 1,
  obj({ filters: arr(aclFilter) }),
  obj({
    throttleMs: i32,
    results: arr(obj({
      errorCode: i16, errorMessage,
      matching: arr(obj({
        errorCode: i16, errorMessage, resourceType: i8, resourceName: str, patternType: i8, principal: str, host: str,
        operation: i8, permissionType: i8,
      })),
    })),
  }))

export const DescribeConfigs = api(32, 4, 1,
  obj({
    resources: arr(obj({ resourceType: i8, resourceName: str, names: nullableArr(str) })),
    includeSynonyms: bool, includeDocumentation: bool,
  }),
  obj({
    throttleMs: i32,
    resources: arr(obj({
      errorCode: i16, errorMessage, resourceType: i8, resourceName: str,
      configs: arr(obj({
        name: str, value: nullableStr, readOnly: bool, source: i8, isSensitive: bool,
        synonyms: arr(obj({ name: str, value: nullableStr, source: i8 })),
        type: i8, documentation: nullableStr,
      })),
    })),
  }))

export const SaslAuthenticate = api(36, 2, 1,
  obj({ authBytes: bytes }),
  obj({ errorCode: i16, errorMessage, authBytes: bytes, sessionLifetimeMs: i64 }))

export const CreatePartitions = api(37, 2, 1,
  obj({
    topics: arr(obj({ topic: str, count: i32, assignments: nullableArr(obj({ replicas: arr(i32) })) })),
    timeoutMs: i32, validateOnly: bool,
  }),
  obj({ throttleMs: i32, topics: arr(obj({ topic: str, errorCode: i16, errorMessage })) }))

export const DeleteGroups = api(42, 2, 1,
  obj({ groups: arr(str) }),
  obj({ throttleMs: i32, groups: arr(obj({ groupId: str, errorCode: i16 })) }))

export const IncrementalAlterConfigs = api(44, 1, 1,
  obj({
    resources: arr(obj({
      resourceType: i8, resourceName: str, configs: arr(obj({ name: str, op: i8, value: nullableStr })),
    })),
    validateOnly: bool,
  }),
  obj({ throttleMs: i32, resources: arr(obj({ errorCode: i16, errorMessage, resourceType: i8, resourceName: str })) }))

export const OffsetDelete = api(47, 0, 0,
  obj({ groupId: str, topics: arr(obj({ topic: str, partitions: arr(obj({ partition: i32 })) })) }),
  obj({
    errorCode: i16, throttleMs: i32,
    topics: arr(obj({ topic: str, partitions: arr(obj({ partition: i32, errorCode: i16 })) })),
  }))

export const DescribeUserScramCredentials = api(50, 0, 1,
  obj({ users: nullableArr(obj({ name: str })) }),
  obj({
    throttleMs: i32, errorCode: i16, errorMessage,
    results: arr(obj({
      user: str, errorCode: i16, errorMessage, credentials: arr(obj({ mechanism: i8, iterations: i32 })),
    })),
  }))
export const AlterUserScramCredentials = api(51, 0, 1,
  obj({
    deletions: arr(obj({ name: str, mechanism: i8 })),
    upsertions: arr(obj({ name: str, mechanism: i8, iterations: i32, salt: bytes, saltedPassword: bytes })),
  }),
  obj({ throttleMs: i32, results: arr(obj({ user: str, errorCode: i16, errorMessage })) }))

export const DescribeCluster = api(60, 0, 1,
  obj({ includeAuthorizedOperations: bool }),
  obj({
    throttleMs: i32, errorCode: i16, errorMessage, clusterId: str, controllerId: i32,
    brokers: arr(obj({ nodeId: i32, host: str, port: i32, rack: nullableStr })),
    authorizedOperations: i32,
  }))

/** All of them, for tests. @internal */
export const apis: Api<any, any>[] = [
  Produce, Fetch, ListOffsets, Metadata, OffsetCommit, OffsetFetch, FindCoordinator, JoinGroup, Heartbeat, LeaveGroup,
  SyncGroup, DescribeGroups, ListGroups, SaslHandshake, ApiVersions, CreateTopics, DeleteTopics, DeleteRecords,
  InitProducerId, DescribeAcls, CreateAcls, DeleteAcls, DescribeConfigs, SaslAuthenticate, CreatePartitions, DeleteGroups,
  IncrementalAlterConfigs, OffsetDelete, DescribeUserScramCredentials,
  AlterUserScramCredentials, DescribeCluster,
]

// What members of a group of consumers tell each other, in version 1 and 0: never flexible.
export const Subscription = obj({ version: i16, topics: arr(str), userData: nullableBytes })
export const Assignment = obj({ version: i16, topics: arr(topicPartitions), userData: nullableBytes })
