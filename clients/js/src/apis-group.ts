// The APIs of consumer groups.
import { api, arr, bool, bytes, i16, i32, i64, i8, nullableArr, nullableBytes, nullableStr, obj, str } from './schema.js'

const errorMessage = nullableStr
const topicPartitions = obj({ topic: str, partitions: arr(i32) })

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

// What members of a group of consumers tell each other, in version 1 and 0: never flexible.
export const Subscription = obj({ version: i16, topics: arr(str), userData: nullableBytes })
export const Assignment = obj({ version: i16, topics: arr(topicPartitions), userData: nullableBytes })
