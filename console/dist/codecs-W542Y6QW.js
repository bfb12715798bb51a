import{a,b,c,d}from"./chunk-MPH5DRV7.js";import"./chunk-M45YFAEI.js";import"./chunk-4PLZ62AN.js";export{a as Output,d as compress,c as decompress,b as tooLarge};
