R
{"pool-size":2}