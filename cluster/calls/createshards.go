package calls

// createShardsCall has the catalog's leader create the shards of consumer groups if there are none.
var createShardsCall = Call[Nothing, CatalogReply]{request: nothing(), answer: catalogReply()}
