// The APIs of administration.
import { api, arr, bool, bytes, i16, i32, i64, i8, nullableArr, nullableStr, obj, str, uuid } from './schema.js'

const errorMessage = nullableStr

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

/** Trimaran's own: what `trimaran cluster status` shows, in JSON. */
export const Status = api(21586, 0, 0, obj({}), obj({ errorCode: i16, json: bytes }))
