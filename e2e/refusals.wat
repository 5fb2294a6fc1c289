;; What zentinel-proxy does from 0.6.54 on with refusals, header operations and
;; answers that do not come, by words in the event. Each handler has a list of
;; words, each with its answer, both ended by a zero byte; the first word that
;; stands in the event decides, and the empty one stands in all. An empty answer
;; never comes: the handler computes without end.
(module
  (memory (export "memory") 8)
  (data (i32.const 1024)
    "/challenge\00{\"decision\":\"challenge\",\"challenge_type\":\"basic\",\"challenge_params\":"
      "{\"www-authenticate\":\"Basic realm=\\\"e2e\\\"\",\"body\":\"who?\"}}\00"
    "/limited\00{\"decision\":\"block\",\"status\":429,\"body\":\"context: {}\","
      "\"add_response_headers\":{\"retry-after\":\"9\",\"content-type\":\"application/json\"}}\00"
    "/late-head\00\00"
    "/early\00{\"decision\":\"allow\",\"add_response_headers\":{\"x-from-head\":\"1\"}}\00"
    "\00{\"decision\":\"allow\"}\00")
  (data (i32.const 4096)
    "/form/refuse\00{\"decision\":\"block\",\"status\":422,\"body\":\"bad body\"}\00"
    "/form/redirect\00{\"decision\":\"redirect\",\"body\":\"/there\"}\00"
    "/form/late\00\00"
    "/form/tell\00{\"decision\":\"allow\",\"add_request_headers\":{\"x-late\":\"1\"},"
      "\"add_response_headers\":{\"x-from-body\":\"1\"},"
      "\"request_body_mutation\":{\"action\":\"replace\",\"data\":\"changed\"}}\00"
    "\00{\"decision\":\"allow\"}\00")
  (data (i32.const 8192)
    "answer-refuse\00{\"decision\":\"block\",\"status\":451,\"body\":\"not you\","
      "\"add_response_headers\":{\"x-why\":\"r8\"}}\00"
    "answer-redirect\00{\"decision\":\"redirect\",\"body\":\"/there\"}\00"
    "answer-late\00\00"
    "\00{\"decision\":\"allow\"}\00")
  (data (i32.const 12288)
    "content-refuse\00{\"decision\":\"block\",\"status\":451,\"body\":\"not you\"}\00"
    "content-late\00\00"
    "\00{\"decision\":\"allow\"}\00")
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "dealloc") (param i32 i32))
  (func $length (param $at i32) (result i32)
    (local $end i32)
    (local.set $end (local.get $at))
    (loop $next
      (if (i32.load8_u (local.get $end))
        (then (local.set $end (i32.add (local.get $end) (i32.const 1))) (br $next))))
    (i32.sub (local.get $end) (local.get $at)))
  (func $is (param $at i32) (param $word i32) (param $n i32) (result i32)
    (loop $next
      (if (i32.eqz (local.get $n)) (then (return (i32.const 1))))
      (if (i32.ne (i32.load8_u (local.get $at)) (i32.load8_u (local.get $word)))
        (then (return (i32.const 0))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (local.set $word (i32.add (local.get $word) (i32.const 1)))
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br $next))
    (unreachable))
  (func $has (param $at i32) (param $size i32) (param $word i32) (param $n i32) (result i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $at) (local.get $size)))
    (loop $next
      (if (i32.gt_u (i32.add (local.get $at) (local.get $n)) (local.get $end))
        (then (return (i32.const 0))))
      (if (call $is (local.get $at) (local.get $word) (local.get $n))
        (then (return (i32.const 1))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next))
    (unreachable))
  (func $decide (param $p i32) (param $n i32) (param $list i32) (result i64)
    (local $word i32) (local $answer i32) (local $size i32)
    (loop $next
      (local.set $word (call $length (local.get $list)))
      (local.set $answer
        (i32.add (i32.add (local.get $list) (local.get $word)) (i32.const 1)))
      (local.set $size (call $length (local.get $answer)))
      (if (call $has (local.get $p) (local.get $n) (local.get $list) (local.get $word))
        (then
          (if (i32.eqz (local.get $size)) (then (loop $spin (br $spin))))
          (return (i64.or
            (i64.shl (i64.extend_i32_u (local.get $answer)) (i64.const 32))
            (i64.extend_i32_u (local.get $size))))))
      (local.set $list
        (i32.add (i32.add (local.get $answer) (local.get $size)) (i32.const 1)))
      (br $next))
    (unreachable))
  (func (export "on_request_headers") (param i32 i32) (result i64)
    (call $decide (local.get 0) (local.get 1) (i32.const 1024)))
  (func (export "on_request_body") (param i32 i32) (result i64)
    (call $decide (local.get 0) (local.get 1) (i32.const 4096)))
  (func (export "on_response_headers") (param i32 i32) (result i64)
    (call $decide (local.get 0) (local.get 1) (i32.const 8192)))
  (func (export "on_response_body") (param i32 i32) (result i64)
    (call $decide (local.get 0) (local.get 1) (i32.const 12288))))
