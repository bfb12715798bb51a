package calls

import "github.com/trimaran-io/trimaran/fsm"

// administerCall has the catalog's leader do what an operator asks.
var administerCall = Call[fsm.AdminRequest, CatalogReply]{request: strictJSON[fsm.AdminRequest](), answer: catalogReply()}
