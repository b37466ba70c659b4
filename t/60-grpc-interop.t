#!/usr/bin/perl
# Guards: a gRPC client that we did not write gets from our server what grpc promises, in unary calls and streams.
use strict;
use warnings;
use GrpcTest;
use HyperTest;
use Test::More;

need_python();
my $echo = start('echo', [ build() . '/t/unit/grpc_echo', certs(), 'hd-2' ]);
my $port = $echo->ready('port');
my $fds = $echo->fds;

my %u = py_client('hd-1', $port, 'hd-2', 'unary');
is_deeply($u{echo}{ok}, { id => 'hd-2.echo(1)', result => { n => 1, f => 1.5, t => JSON::PP::true, z => undef, s => "\x{fc}\n",
	l => [ 1, 'x', { y => [] } ], m => { k => {} } } }, 'a Struct comes back as it went');
is_deeply($u{list}{ok}{result}, { _ => [ 1, 'two', undef ] }, 'a list travels under _');
is_deeply($u{error}{ok}{error}, { code => 7, message => 'no', data => { why => { a => 1 } } }, 'an error');
is_deeply($u{status}{status}, [ 2, "error handling gRPC request: \x{e4} 100% \n done" ], 'grpc-message beyond ASCII');
ok($u{'3 MB'}{ok}, '3 MB there and back');
is($u{'3 MB answer'}{ok}, 3000000, '3 MB back');
is($u{'answer over the limit'}{status}[0], 8, 'our side refuses to send more than the limit');
is_deeply($u{'request over the limit'}{status},
	[ 8, 'grpc: received message larger than max (5009926 vs. 4194304)' ], 'over the limit: RESOURCE_EXHAUSTED');
is_deeply($u{malformed}{status}, [ 13, 'malformed request' ], 'no protobuf');
is_deeply($u{nested}{status}, [ 13, 'malformed request' ], '34 kB of nested Struct are refused');
is_deeply($u{'unknown method'}{status}, [ 12, 'unknown method Nope for service Hyper' ], 'unknown method');
is($u{'unknown service'}{status}[0], 12, 'unknown service');
is($u{'unknown headers'}{ok}, 'hd-2.echo(1)', 'unknown headers are ignored');
ok($u{'headers over the limit'}{status}[0], 'more than 16 KB of headers are refused');
is($u{compressed}{status}[0], 12, 'a compressed message is refused');
is($u{'after all that'}{ok}, 'hd-2.echo(1)', 'and the same connection serves on');

my %m = py_client('hd-1', $port, 'hd-2', 'many', 500);
is($m{many}{ok}, 500, '500 calls, 150 at a time, all of their bytes');

my %s = py_client('hd-1', $port, 'hd-2', 'stream', '{"name":"hd-1","count":3,"wait_ms":1000}', 3);
is_deeply($s{request}{ok}, { method => 'hd-1.ask', id => 'hd-1.ask(3)', clientName => 'hd-2', params => { n => 3 } },
	'requests over the reverse stream');
cmp_ok($s{request}{ms}, '>=', 900, 'the first one came when the server had something to say');
is_deeply($s{end}{status}, [ 0, 'all answered' ], 'its end');
is($echo->count_log(qr/ answer id=hd-1\.ask\(\d\) code=0 result=\{"got":\{"n":\d\}\}/), 3, 'and our side has the answers');

my %c = py_client('hd-1', $port, 'hd-2', 'cancel');
is($c{'after cancel'}{ok}, 'hd-2.echo(1)', 'a cancelled stream leaves the connection alone');
ok($echo->wait_log(qr/ end svc=ServerCall err=1 /), 'our side sees the cancel');

is($echo->count_log(qr/ secured /), $echo->count_log(qr/ closed reason=closed /) + 0, 'every connection ended cleanly')
    if wait_until { $echo->count_log(qr/ closed /) == $echo->count_log(qr/ secured /) };
ok((wait_until { $echo->fds <= $fds }), 'descriptors are back');
is($echo->stop, 0, 'stops cleanly');
hyper_done();
