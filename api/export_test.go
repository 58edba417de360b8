package api

// Guarded is how a listener with a token serves.
var Guarded = requireToken
