#!/usr/bin/perl
# Guards: the operator's own service gets the bare method, the whole id and who is calling, and what it answers passes through as it is.
use strict;
use warnings;
use HyperMesh;
use HyperTest;
use Test::More;

my $answer = tmp() . '/answer'; # "STATUS\nBODY" of the next answer
my $seen = tmp() . '/seen';     # head and body of the last request
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 10) or die "listen: $!";
my $port = $listener->sockport;

# A service that answers once on each connection and closes it, as the reference's do.
sub serve_one {
	my ($sock) = @_;
	my $head = '';
	while ($head !~ /\r\n\r\n/) {
		sysread($sock, $head, 1, length $head) or return;
	}
	my ($len) = $head =~ /^Content-Length: (\d+)\r$/mi;
	write_file($seen, $head . read_exactly($sock, $len));
	my ($status, $body) = split /\n/, read_file($answer), 2;
	print $sock "HTTP/1.1 $status\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
	return;
}
my $parent = $$;
my $pid = fork // die "fork: $!";
if (!$pid) {
	while (getppid == $parent && (my $sock = $listener->accept)) { serve_one($sock) }
	POSIX::_exit(0);
}

my $m = mesh(start => 0, service => { 'hd-2' => "http://127.0.0.1:$port/jsonrpc" });
$m->start_one('sd');
$m->submit;
$m->start_one('hd-2');

# HTTP status and body of the service's answer; what the caller gets
my @cases = (
	[ '200 OK', '{"jsonrpc":"2.0","result":{"a":1},"id":"x"}', { result => { a => 1 } } ],
	[ '200 OK', '{"jsonrpc":"2.0","result":"ok","id":null}', { result => 'ok' } ],
	[ '200 OK', '{"jsonrpc":"2.0","result":null,"id":1}', { result => undef } ],
	[ '200 OK', '{"jsonrpc":"2.0","id":""}', { result => {} } ],
	[ '500 Oh', '{"jsonrpc":"2.0","result":[1],"error":null,"id":""}', { result => [1] } ],
	[ '400 Bad Request', '{"jsonrpc":"2.0","error":{"code":7,"message":"seven","data":{"x":[1]}},"id":""}',
		{ error => { code => 7, message => 'seven', data => { x => [1] } } } ],
	[ '200 OK', '{"jsonrpc":"2.0","error":{"code":-32603,"message":"internal error"},"id":""}',
		{ error => { code => -32603, message => 'internal error' } } ],
	# an error of the service's own, in the words of one of ours
	[ '400 Bad Request', '{"jsonrpc":"2.0","error":{"code":-32603,"message":"its database is away","data":{"reason":"unreachable"}},"id":""}',
		{ error => { code => -32603, message => 'its database is away', data => { reason => 'unreachable' } } } ],
);
for my $i (0 .. $#cases) {
	my ($status, $body, $want) = @{ $cases[$i] };
	write_file($answer, "$status\n$body");
	my $a = $m->call('hd-2.echo', { n => $i }, at => 'hd-2', id => "i$i");
	is($a->{http}, $want->{error} ? 400 : 200, "$body: HTTP status");
	is_deeply({ map { $_ => $a->{$_} } grep { /^(?:result|error)$/ } keys %$a }, $want, "$body: passes through") or diag json_text($a);
	is($a->{id}, "i$i", "$body: under the caller's id");
}

my ($head, $body) = split /\r\n\r\n/, read_file($seen), 2;
like($head, qr{^POST /jsonrpc HTTP/1\.1\r\n}, 'a POST to the path of the endpoint');
like($head, qr{^$_\r?$}m, "with $_") for "Host: 127.0.0.1:$port", 'Content-Type: application/json', 'Accept: application/json';
like($body, qr/^\{"jsonrpc":"2\.0","method":"echo","params":\{.*\},"id":"hd-2\.echo\(i$#cases\)"\}$/, 'the bare method, the whole id');
my $client = json_value($body)->{params}{_client};
is($client->{name}, 'hd-2', '_client: the name');
is_deeply([ sort keys %{ $client->{entry} } ], [ sort qw(name groups channels services certificates settings preferences records properties) ],
	'_client: an entry with all of its keys');
is_deeply($client->{entry}{groups}, ['health-departments'], '_client: what the directory says');
ok(exists $client->{entry}{records} && !defined $client->{entry}{records}, '_client: without the history, which grows for ever');
my $own = $m->call('hd-2._ping', {}, at => 'hd-2')->{result};
is($own->{params}{_client}{entry}{records}, undef, '_ping: neither');
ok(@{ $own->{serverInfo}{records} } > 1, '_ping: serverInfo is the whole entry');

# What is no answer is our error, and says which channel.
write_file($answer, "502 Bad Gateway\n<html>");
my $a = $m->call('hd-2.echo', {}, at => 'hd-2');
is($a->{error}{code}, 500, 'no JSON: 500');
like($a->{error}{message}, qr{^Channel 0 encountered an error delivering the message: http://127\.0\.0\.1:$port/jsonrpc: HTTP status 502}, 'no JSON: the message');
kill 'KILL', $pid;
waitpid $pid, 0;
close $listener;
$a = $m->call('hd-2.echo', {}, at => 'hd-2');
is($a->{error}{code}, 500, 'nobody there: 500');
is($a->{error}{data}{reason}, 'unreachable', 'nobody there: reason');
hyper_done();
