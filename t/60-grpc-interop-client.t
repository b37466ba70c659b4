#!/usr/bin/perl
# Guards: our gRPC client is understood by a server that we did not write, and understands what that one says.
use strict;
use warnings;
use GrpcTest;
use HyperTest;
use Test::More;

need_python();
my $server = start('python', [ python('grpc_server.py'), certs(), 'hd-2' ]);
my $port = $server->ready('port');

my @l = our_client('hd-1', $port, 'hd-2', 'call', 'hd-2.echo', '{"a":1,"b":[true,null,"\u00fc"],"c":{"d":1.5}}');
is_deeply($l[0]{response}{result}, { a => 1, b => [ JSON::PP::true, undef, "\x{fc}" ], c => { d => 1.5 } }, 'echo');
is_deeply($l[1]{end}, [ 0, '' ], 'status 0');
my ($seen) = grep { $_->{call} } lines_of($server->log_text);
is_deeply($seen->{call}, { method => 'hd-2.echo', id => 'hd-2.x(1)', clientName => 'hd-1',
	params => { a => 1, b => [ JSON::PP::true, undef, "\x{fc}" ], c => { d => 1.5 } } }, 'as the server saw it');
is_deeply($seen->{peer}, ['hd-1'], 'with our certificate');
is_deeply($seen->{headers}, ['user-agent'], 'and no header that grpc does not know');

@l = our_client('hd-1', $port, 'hd-2', 'call', 'hd-2.error', '{}');
is_deeply([ @{ $l[0]{response} }{qw(code message data)} ], [ -100, 'no', { a => [ 1, undef ] } ], 'an error');
@l = our_client('hd-1', $port, 'hd-2', 'call', 'hd-2.empty', '{}');
is($l[0]{response}{code}, 0, 'a response without result');
@l = our_client('hd-1', $port, 'hd-2', 'call', 'hd-2.nope', '{}');
is_deeply($l[0]{end}, [ 2, "error handling gRPC request: \x{e4} 100% \n done" ], 'a status in trailers only');
@l = our_client('hd-1', $port, 'hd-2', 'call', 'hd-2.big', '{"size":3000000}');
is(length $l[0]{response}{result}{text}, 3000000, '3 MB back');
@l = our_client('hd-1', $port, 'hd-2', 'call', 'hd-2.big', '{"size":4194304}');
is($l[0]{end}[0], 8, 'over the limit: RESOURCE_EXHAUSTED');
like($l[0]{end}[1], qr/^grpc: received message larger than max \(41943\d\d vs\. 4194304\)$/, 'in its words');
@l = our_client('hd-1', $port, 'hd-2', 'call', 'hd-2.slow', '{}');
is_deeply($l[-1]{end}, [ 0, '' ], 'a server that takes its time');
@l = our_client('hd-1', $port, 'hd-2', 'path', '/Hyper/Call', 5000000);
is($l[0]{end}[0], 8, 'the server refuses what is over its limit');
@l = our_client('hd-1', $port, 'hd-2', 'path', '/Hyper/Nope', 0);
is($l[0]{end}[0], 12, 'unknown method');

# No response headers before the first request: the client must not wait for them with its announcement.
@l = our_client('hd-1', $port, 'hd-2', 'stream', '{"name":"hd-1","count":4,"wait_ms":1000}');
is_deeply([ map { $_->{request}{id} } @l[ 0 .. 3 ] ], [ map { "hd-1.ask($_)" } 0 .. 3 ], 'requests over the reverse stream');
is_deeply($l[4]{end}, [ 0, '' ], 'its end');
is_deeply([ map { $_->{answer} } grep { $_->{answer} } lines_of($server->log_text) ],
	[ map { { id => "hd-1.ask($_)", result => { got => { n => $_ } } } } 0 .. 3 ], 'the answers arrived');
@l = our_client('hd-1', $port, 'hd-2', 'stream', '{"no":"name"}');
is_deeply($l[0]{end}, [ 2, 'invalid client announcement' ], 'a refused announcement');

@l = our_client('hd-1', $port, 'hd-1', 'call', 'hd-1.echo', '{}');
is($l[0]{closed}[0], 'tls', 'the server is not who was dialled');
like($l[0]{closed}[1], qr/^TLS handshake with localhost:$port as hd-1: hostname mismatch/, 'and the text names the step');
is($server->stop, 0, 'the server stops');
@l = our_client('hd-1', $port, 'hd-2', 'call', 'hd-2.echo', '{}');
is($l[0]{closed}[0], 'unreachable', 'a server that is gone');
like($l[0]{closed}[1], qr/^dial localhost:$port: Connection refused/, 'and the text names the step');
hyper_done();
