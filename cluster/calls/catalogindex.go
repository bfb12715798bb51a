package calls

// catalogIndexCall asks the catalog's leader how far the catalog is, as a majority confirms.
var catalogIndexCall = Call[Nothing, CatalogReply]{request: nothing(), answer: catalogReply()}
