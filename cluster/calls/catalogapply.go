package calls

// catalogApplyCall has the catalog's leader propose a command as it is (fsm.CatalogCommand.Encode).
var catalogApplyCall = Call[[]byte, CatalogReply]{request: raw(), answer: catalogReply()}
