
 zentinel-proxy0.6.54"{}