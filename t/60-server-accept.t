#!/usr/bin/perl
# Guards: hd-2 dials for a proxy only what is permitted, says what is wrong with a _connectionRequest, and lets nobody else in.
use strict;
use warnings;
use HyperMesh;
use HyperTest;
use IO::Socket::SSL;
use MIME::Base64;
use Test::More;

my $endpoint = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 10) or die "listen: $!";
my $where = '127.0.0.1:' . $endpoint->sockport;
my $refused = '127.0.0.1:' . free_port();
my $unlisted = '127.0.0.1:' . free_port();
my $m = mesh(
	directory => 'json',
	start => 0,
	edit => sub {
		push @{ $_[0] }, { name => 'public-proxy-1.ga', section => 'settings', created_at => '2026-01-01T00:00:00Z',
			data => [ { operator => '', service => 'proxy', environment => '', settings => { endpoints => [ $where, $refused ] } } ] };
	},
	hyper => { 'hd-2' => qq(endpoint_allow = [ "$where", "$refused", "$unlisted" ];\n) });
$m->start_one($_) for qw(ph hd-2);
ok($m->{ph}->wait_log(qr/ registered .*operator=hd-2/, 10), 'hd-2 has opened its standing stream');

my $token = join '', map { chr int rand 256 } 1 .. 32;
my %good = (channel => 'grpc_server', endpoint => $where, token => encode_base64($token, ''),
	client => { name => 'hd-1', entry => { name => 'hd-1', channels => [] } });

# As the proxy itself asks: through its own operator's hyper.
sub ask {
	my (%with) = @_;
	my %params = (%good, %with);
	delete $params{$_} for grep { !defined $params{$_} } keys %params;
	return rpc("https://public-proxy-1.ga:$m->{port}{'ph.rpc'}/jsonrpc", 'hd-2._connectionRequest', \%params, cert => 'public-proxy-1.ga');
}

# name, changed parameters, code, message, reason
my @cases = (
	[ 'no channel', { channel => undef }, -32602, qr/^invalid params/ ],
	[ 'channel is a number', { channel => 1 }, -32602, qr/^invalid params/ ],
	[ 'no endpoint', { endpoint => undef }, -32602, qr/^invalid params/ ],
	[ 'token of 31 bytes', { token => encode_base64(substr($token, 1), '') }, -32602, qr/^invalid params/ ],
	[ 'token of 33 bytes', { token => encode_base64("x$token", '') }, -32602, qr/^invalid params/ ],
	[ 'no base64', { token => '*' x 44 }, -32602, qr/^invalid params/ ],
	[ 'no client', { client => undef }, -32602, qr/^invalid params/ ],
	[ 'client without entry', { client => { name => 'hd-1' } }, -32602, qr/^invalid params/ ],
	[ 'another channel', { channel => 'quic' }, -100, qr/^no channel accepted the request$/, 'refused' ],
	[ 'client that the directory does not know', { client => { name => 'nope', entry => {} } }, -32006, qr/no entry of client 'nope'/, 'unknown_operator' ],
	[ 'endpoint that the proxy does not publish', { endpoint => $unlisted }, -32006, qr/hd-2 does not dial $unlisted for public-proxy-1\.ga/, 'refused' ],
	[ 'endpoint that the settings do not permit', { endpoint => '127.0.0.1:22' }, -32006, qr/hd-2 does not dial/, 'refused' ], # fixed: never dialled
	[ 'endpoint where nobody listens', { endpoint => $refused }, -32005, qr/hd-2 could not reach the endpoint $refused: .*refused/i, 'unreachable' ],
);
for my $case (@cases) {
	my ($name, $with, $code, $message, $reason) = @$case;
	my $a = ask(%$with);
	is($a->{error}{code}, $code, "$name: code") or diag json_text($a);
	like($a->{error}{message}, $message, "$name: message");
	is($a->{error}{data}{reason}, $reason, "$name: reason") if $reason;
}
my $bits = '';
vec($bits, fileno $endpoint, 1) = 1;
is(select($bits, undef, undef, 0), 0, 'nothing was dialled so far');

sub read_exactly_tls {
	my ($tls, $len) = @_;
	my $data = '';
	while (length $data < $len) {
		last if !sysread $tls, $data, $len - length $data, length $data;
	}
	return $data;
}

# The other party, with the certificate of NAME, through the socket that hd-2 has dialled: what it reads, or the TLS error.
sub come_as {
	my ($name) = @_;
	my $a = ask();
	is_deeply($a->{result}, {}, "$name: hd-2 confirms") or diag json_text($a);
	my $sock = $endpoint->accept or die "accept: $!";
	is(read_exactly($sock, 32), $token, "$name: the 32 bytes came, nothing before them");
	my $dir = certs();
	my $tls = IO::Socket::SSL->start_SSL($sock, SSL_ca_file => "$dir/root.crt", SSL_cert_file => "$dir/$name.crt",
		SSL_key_file => "$dir/$name.key", SSL_hostname => 'hd-2', SSL_verifycn_name => 'hd-2', SSL_verifycn_scheme => 'default',
		SSL_verify_mode => SSL_VERIFY_PEER, SSL_alpn_protocols => ['h2'], Timeout => 10) or return "tls: $SSL_ERROR";
	print $tls "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\0\0\0\4\0\0\0\0\0"; # an empty SETTINGS frame
	while (1) {
		my $head = read_exactly_tls($tls, 9);
		return 'closed' if length $head < 9;
		my ($len, $type, $flags) = (unpack('N', "\0" . substr $head, 0, 3), unpack 'x3 C C', $head);
		return 'served' if $type == 4 && $flags & 1; # our SETTINGS were acknowledged
		read_exactly_tls($tls, $len);
	}
}
is(come_as('hd-1'), 'served', 'hd-1: is served');
is(come_as('hd-2'), 'closed', 'another operator with a pinned certificate: is not');
is(come_as('hd-1-alt'), 'closed', 'a certificate of hd-1 that the directory does not pin: neither');
is($m->{'hd-2'}->count_log(qr/ grpc_refused .*why="the connection was brokered for another operator"/), 1, 'hd-2 says why');
isnt($m->{'hd-2'}->wait_log(qr/ grpc_refused .*why="no name matched/), undef, 'both times');
hyper_done();
