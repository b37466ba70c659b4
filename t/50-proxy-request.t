#!/usr/bin/perl
# Guards: requestConnection refuses every malformed request with a clear error, and a good one is told to B as the protocol says.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use Test::More;

my $p = proxy(workers => 1);
my $good = { to => 'hd-2', channel => 'grpc_server', _client => client() };
close $_ for $p->pair; # whatever is allocated once is there now
$p->note_fds;

# All faults of the parameters at once
my %with = (%$good);
for my $case (
	[ 'no parameters', {}, [ '_client', 'channel', 'to' ] ],
	[ 'without _client', { to => 'hd-2', channel => 'grpc_server' }, ['_client'] ],
	[ 'wrong types', { to => 7, channel => [], _client => 'hd-1' }, [ '_client', 'channel', 'to' ] ],
	[ 'channel no word', { %with, channel => 'grpc"server' }, ['channel'] ],
	[ 'not a name', { %with, to => 'hd 2; rm' }, ['to'] ],
	[ '_client of two names', { %with, _client => { %{ client('hd-1') }, name => 'hd-3' } }, ['_client.entry.name'] ],
	[ '_client without channels', { %with, _client => { name => 'hd-1', entry => { name => 'hd-1' } } }, ['_client.entry.channels'] ],
) {
	my ($name, $params, $keys) = @$case;
	my $r = $p->ask(params => $params)->answer;
	is($r->{error}{code}, -32602, "$name: -32602");
	is($r->{error}{message}, 'invalid params', "$name: its message") if $name eq 'no parameters';
	is_deeply([ sort keys %{ $r->{error}{data}{data} } ], $keys, "$name: names every fault");
	is($r->{http}, 400, "$name: HTTP 400");
}
like($p->ask(params => { %with, channel => '' })->answer->{error}{data}{data}{channel}, qr/like grpc_server/, 'the error says what would do');
{
	# which types there are is B's affair
	my $ask = $p->ask(params => { %with, channel => 'quic' });
	my $told = $p->told;
	is($told->{params}{channel}, 'quic', 'another type of channel is passed on');
	$told->answer({ error => { code => -100, message => 'no channel accepted the request', data => undef } });
	my $e = $ask->answer->{error};
	is_deeply([ @{$e}{qw(code message)} ], [ -100, 'no channel accepted the request' ], 'and so are the code and the text of the refusal');
}

# What is no JSON-RPC request of ours
my $deep = sub { my $n = shift; return '{"jsonrpc":"2.0","method":"requestConnection","id":"1","params":{"to":' . '[' x $n . ']' x $n . '}}' };
for my $case (
	[ '10,000-deep JSON', $deep->(10_000), -32700 ],
	[ 'duplicate keys', '{"jsonrpc":"2.0","method":"requestConnection","params":{"to":"a","to":"b"},"id":"1"}', -32700 ],
	[ 'not JSON', 'hello', -32700 ],
	[ 'params a list', '{"jsonrpc":"2.0","method":"requestConnection","params":[],"id":"1"}', -32600 ],
	[ 'another method', '{"jsonrpc":"2.0","method":"shutDown","params":{},"id":"1"}', -32601 ],
) {
	my ($name, $body, $code) = @$case;
	my $r = $p->ask(body => $body)->answer;
	is($r->{error}{code}, $code, "$name: $code") or diag(json_text($r));
}

# Bombs, again and again
my $rss = rss_of($p->{d}->pid);
my $r;
for my $round (1 .. 4) {
	for my $case (
		[ '5 MB', 'x' x 5_000_000, 413 ],
		[ '5 MB in a parameter', '{"jsonrpc":"2.0","method":"requestConnection","params":{"to":"' . 'x' x 5_000_000 . '"},"id":"1"}', 413 ],
		[ '4 MB of names', '{"jsonrpc":"2.0","method":"requestConnection","params":{"to":"' . 'x' x 4_000_000 . '"},"id":"1"}', 400 ],
		[ '10,000 deep', $deep->(10_000), 400 ],
		[ '2,000,000 deep', $deep->(2_000_000), 400 ],
		[ 'a million empty objects', '{"jsonrpc":"2.0","method":"requestConnection","params":{"to":[' . '{},' x 1_000_000 . '1]},"id":"1"}', 400 ],
	) {
		my ($name, $body, $http) = @$case;
		$r = $p->ask(body => $body)->answer;
		is($r->{http}, $http, "round $round, $name: HTTP $http") or diag(substr json_text($r), 0, 500);
		ok($r->{error}{code} < 0, "round $round, $name: a JSON-RPC error");
	}
}
SKIP: {
	skip 'sanitizers keep freed memory on purpose', 1 if read_file(build() . '/config.h') =~ /define HYPER_SANITIZE/;
	cmp_ok(rss_of($p->{d}->pid), '<', $rss + 10_000, 'none costs lasting memory');
}
is($p->told(0.2), undef, 'B was told nothing of all this');

# A good one
my $ask = $p->ask;
my $told = $p->told or die 'B was not told';
is($told->{method}, 'hd-2._connectionRequest', 'B is asked for _connectionRequest');
is(length $told->token, 32, 'the token has 32 bytes');
my $endpoint = "127.0.0.1:$p->{port}";
is_deeply($told->{params}, { channel => 'grpc_server', endpoint => $endpoint, token => $told->{params}{token},
	client => { name => 'hd-1', entry => { %{ client()->{entry} }, groups => undef, records => undef } } }, 'B is told exactly what protocol.md 7.1 has');
like($told->{body}, qr/"client":\{"name":"hd-1","entry":\{"name":"hd-1","groups":null,"channels":\[.*?\],"services":\[\],"certificates":\[\],"settings":\[\],"preferences":\[\],"records":null,"properties":null\}\},"endpoint":"/,
	'in its order');
$told->answer;
$r = $ask->answer;
is($r->{http}, 200, 'A gets HTTP 200');
is($r->{id}, 'a1', 'under its id');
is($r->{result}{token}, $told->{params}{token}, 'A has the same token');
is($r->{result}{endpoint}, $endpoint, 'and endpoint');
like($r->{result}{session}, qr/^[0-9a-f]{12}$/, 'and a session id');
my $t = $r->{result}{timeline};
is_deeply([ sort keys %$t ], [qw(answered asked confirmed issued told)], 'the timeline has the steps that were reached');
my @order = map { $t->{$_} } qw(asked issued told confirmed answered);
is_deeply(\@order, [ sort { $a <=> $b } @order ], 'in their order');
is($t->{asked}, 0, 'counted from the request');
$p->{d}->wait_log(qr/ info $_ session=$r->{result}{session} from=hd-1 to=hd-2 .*ms=[0-9.]+/) // fail("no log line of `$_`") for qw(asked issued told confirmed answered);

ok($p->fds_are_back('all refusals'), 'the process serves on');
$p->token_is_secret($told->token, 'brokering');
is($p->{d}->stop, 0, 'it stops cleanly');
# Connections of one address: what is over public.tcp_rate_limits is closed at once
my $hour = 3600;
wait_until { $hour - time % $hour > 30 } 40; # not over the turn of an hour
$p = proxy(workers => 1, more => 'tcp_rate_limits = ( { type = "minute"; limit = 1000; }, { type = "hour"; limit = 9; }, { type = "hour"; limit = 3; } );');
my @many = map { $p->come('') } 1 .. 4;
is((read_to_end($many[3], 5))[1], 'eof', 'the connection over the strictest limit of its address is closed at once');
isnt($p->{d}->wait_log(qr/proxy-worker-0\[\d+\] info refused reason=rate peer=127\.0\.0\.1 /), undef, 'with its reason');
is((read_to_end($many[0], 0.1))[1], 'timeout', 'those before it are not');
is($p->{d}->stop, 0, 'it stops cleanly');
hyper_done();
