"""Config and topology to a forecast: will it fit, what moves, how long will it take."""
