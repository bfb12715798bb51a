import{a,b,c}from"./chunk-XYK3WKNW.js";import"./chunk-MPH5DRV7.js";import"./chunk-M45YFAEI.js";import"./chunk-4PLZ62AN.js";export{a as repeats,c as writeLz4,b as writeSnappy};
