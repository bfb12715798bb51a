package calls

import (
	"github.com/trimaran-io/trimaran/admin"
)

// administerCall has the catalog's leader do what an operator asks.
var administerCall = Call[admin.Request, CatalogReply]{request: strictJSON[admin.Request](), answer: catalogReply()}
