#!/usr/bin/perl
# Guards: `hyper server run` talks to gRPC programs that we did not write, as server and as client, unary and stream.
use strict;
use warnings;
use GrpcTest;
use HyperMesh;
use HyperTest;
use Test::More;

need_python();
my $m = mesh(directory => 'json', start => 0, edit => sub {
	my ($records) = @_;
	# hd-2 is reached without the proxy, where the Python server will listen
	delete $_->{data}[1]{settings}{proxy} for grep { $_->{name} eq 'hd-2' && $_->{section} eq 'channels' } @$records;
});

# --- a Python client calls hd-2 ---
$m->start_one('hd-2');
my $port = $m->{port}{'hd-2.grpc'};
my %r = py_client('hd-1', $port, 'hd-2', 'one', 'hd-2._ping', '{"a":1}');
is($r{'hd-2._ping'}{ok}{id}, 'hd-2._ping(1)', '_ping with a pinned certificate is answered');
ok($r{'hd-2._ping'}{ok}{result}{version}, 'with a version');
is($r{'hd-2._ping'}{ok}{result}{params}{a}, 1, 'and the parameters');
is($r{'hd-2._ping'}{ok}{result}{params}{_client}{name}, 'hd-1', 'and who is calling, from the directory');
%r = py_client('hd-1', $port, 'hd-2', 'one', 'hd-2._ping', '{"_client":{"name":"hd-2"}}', 'hd-2._ping(x)', '');
is($r{'hd-2._ping'}{ok}{result}{params}{_client}{name}, 'hd-1', 'without clientName it is the first name; a forged _client is overwritten');
%r = py_client('hd-1', $port, 'hd-2', 'one', 'hd-2._ping', '{}', 'hd-2._ping(1)', 'hd-2');
is_deeply($r{'hd-2._ping'}{status}, [ 2, 'no matching client' ], 'another clientName: no matching client');
%r = py_client('demo-app', $port, 'hd-2', 'one', 'hd-2._ping', '{}', 'hd-2._ping(1)', '');
is($r{'hd-2._ping'}{ok}{error}{code}, 403, 'pinned but not permitted: 403 in the response');
%r = py_client('hd-1', $port, 'hd-2', 'one', 'nope._ping', '{}');
is($r{'nope._ping'}{status}[0], 2, 'an unknown operator: UNKNOWN');
like($r{'nope._ping'}{status}[1], qr/^error handling gRPC request: .*nope/, 'in the words of the protocol');
{
	local $ENV{T_READY} = 2;    # grpc tries again and again
	%r = py_client('hd-1-alt', $port, 'hd-2', 'one', 'hd-2._ping', '{}');
}
ok(!$r{ready}{ok} || $r{'hd-2._ping'}{status}, 'a certificate of the CA that is not in the directory gets nothing');

# --- a Python client registers at P's hyper, and others call it there ---
$m->start_one('ph');
my $ph = $m->{port}{'ph.grpc'};
my $stream = start('stream', [ python('grpc_client.py'), certs(), 'hd-2', "localhost:$ph", 'public-proxy-1.ga', 'stream',
	'{"name":"hd-2"}', 3, 200 ], ready => 0);
ok($m->{ph}->wait_log(qr/ registered .*operator=hd-2/), 'the announcement is taken');
my $url = "https://public-proxy-1.ga:$m->{port}{'ph.rpc'}/jsonrpc";
my $a = rpc($url, 'hd-2.echo', { t => 'first' }, cert => 'public-proxy-1.ga');
is($a->{result}{got}{t}, 'first', 'a call to hd-2 is answered by its standing stream') or diag(json_text($a));
my ($seen) = grep { $_->{case} eq 'request' } lines_of($stream->log_text);
is($seen->{ok}{method}, 'hd-2.echo', 'its method');
like($seen->{ok}{id}, qr/^hd-2\.echo\(1\)$/, 'its id');
is($seen->{ok}{clientName}, 'public-proxy-1.ga', 'and its clientName is the server');
my @both = map { my $n = $_; start("both$n", [ program('hyper'), 'call', 'hd-2.echo', qq({"t":$n}) ],
	env => { HYPER_SETTINGS => "$m->{dir}/ph" }, ready => 0) } 1, 2;
for my $n (1, 2) {
	ok($both[ $n - 1 ]->wait_log(qr/"t": ?$n\b/, 20), "call $n of two at the same time gets its own answer");
}
ok($stream->wait_log(qr/"case": "end"/), 'the stream ends after the third answer');
for my $c ([ '{"name":"hd-1"}', 'invalid client name supplied' ], [ '{"x":1}', 'invalid client announcement' ]) {
	%r = py_client('hd-2', $ph, 'public-proxy-1.ga', 'stream', @$c[0], 1);
	is_deeply($r{end}{status}, [ 2, $c->[1] ], "announcement $c->[0] is refused");
}
ok(!$m->{ph}->stop && !$m->{'hd-2'}->stop, 'both stop');

# --- hd-1 calls a Python server that is hd-2 ---
my $python = start('python', [ python('grpc_server.py'), certs(), 'hd-2', $port, 'hd-1._ping' ]);
$m->start_one('hd-1');
$a = $m->call('hd-2._ping', { a => [ 1, JSON::PP::true, { x => 2.5 } ] });
is_deeply($a->{result}{params}{a}, [ 1, JSON::PP::true, { x => 2.5 } ], 'a local application reaches it') or diag(json_text($a));
is($a->{result}{version}, 'python', 'and it is that one');
$a = $m->call('hd-2.echo', { n => $_ }) for 1 .. 3;
my @calls = grep { $_->{call} } lines_of($python->log_text);
is(scalar @calls, 4, 'four calls');
is($calls[0]{call}{clientName}, 'hd-1', 'under our name');
my %connections = map { $_->{connection} => 1 } @calls;
is(scalar keys %connections, 1, 'over one connection');
$a = $m->call('hd-2.big', { size => 3000000 });
is(length($a->{result}{text} // ''), 3000000, '3 MB come back');
$a = $m->call('hd-2.big', { size => 4194304 });
is($a->{error}{code}, 500, 'more than the limit is an error');
like($a->{error}{message}, qr/larger than max/, 'which says so');
$a = $m->call('hd-2.error', {});
is_deeply([ @{ $a->{error} }{qw(code message)} ], [ -100, 'no' ], 'an error of theirs is passed on');
$a = $m->call('hd-2.fails', {});
like($a->{error}{message}, qr/error handling gRPC request/, 'so is a status of theirs');
ok($python->wait_log(qr/"answer"/), 'a request over the reverse stream is answered');
my ($answer) = grep { $_->{answer} } lines_of($python->log_text);
is($answer->{answer}{id}, 'hd-1._ping(p1)', 'under its id');
is_deeply([ grep { $_ } map { $_->{announced}{name} } grep { $_->{announced} } lines_of($python->log_text) ], ['hd-1'],
	'the announcement names us');
$python->stop;
$a = $m->call('hd-2._ping', {});
ok($a->{error}, 'a server that is gone is an error');
like($a->{error}{message}, qr/localhost:$port/, 'which names the address') or diag(json_text($a));
hyper_done();
