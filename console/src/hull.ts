/** A hull seen from above, in a box of 100 by 100. */
export const path = 'M3 3 H66 C82 3 93 24 99.500 50 C93 76 82 97 66 97 H3 C1 97 .5 90 .5 82 V18 C.5 10 1 3 3 3 Z'
