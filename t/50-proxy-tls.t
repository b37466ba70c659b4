#!/usr/bin/perl
# Guards: with TLS on both JSON-RPC sides only the proxy's own operator may ask, and the proxy asks nobody but its hyper.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use Test::More;

my $p = proxy(workers => 1, tls => 1, token_timeout => 10);
my $url = "https://localhost:$p->{rpc}/jsonrpc";
my $dir = certs();
my $own = 'public-proxy-1.ga';
my $params = { to => 'hd-2', channel => 'grpc_server', _client => client() };

# curl in a child: its answer is read from a file
sub ask_tls {
	my ($cert, $file) = @_;
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		my $body = write_file("$file.request", json_text({ jsonrpc => '2.0', method => 'requestConnection', params => $params, id => '1' }));
		open STDERR, '>', "$file.err";
		exec 'curl', '-sS', '--noproxy', '*', '--max-time', '20', '-o', $file, '--cacert', "$dir/root.crt",
		    ($cert ? ('--cert', "$dir/$cert.crt", '--key', "$dir/$cert.key") : ()),
		    '-H', 'Content-Type: application/json', '--data-binary', "\@$file.request",
		    '--connect-to', "$own:$p->{rpc}:127.0.0.1:$p->{rpc}", "https://$own:$p->{rpc}/jsonrpc" or POSIX::_exit(127);
	}
	return $pid;
}
sub answer_of { my ($pid, $file) = @_; waitpid $pid, 0; return eval { json_value(read_file($file)) } // { raw => read_file($file), err => read_file("$file.err") } }

my $file = tmp() . '/own';
my $pid = ask_tls($own, $file);
my $told = $p->told;
ok($told, 'the proxy asks its hyper with a certificate of its own') or diag($p->{d}->log_tail);
is($told->{method}, 'hd-2._connectionRequest', 'for B');
$told->answer;
my $r = answer_of($pid, $file);
is($r->{result}{token}, $told->{params}{token}, 'the own operator gets its token') or diag(json_text($r));
my ($a, $b) = map { $p->come($told->token) } 1, 2;
$p->wait_pair($r->{result}{session});
joined($a, $b, 'and a pair comes of it');
close $_ for $a, $b;

# Somebody else: each is told why
for my $cert ('hd-1', 'hd-2', 'demo-app') {
	my $answer = answer_of(ask_tls($cert, tmp() . "/other-$cert"), tmp() . "/other-$cert");
	is($answer->{error}{code}, 403, "$cert, another operator of the same CA: 403") or diag(json_text($answer));
	like($answer->{error}{message}, qr/\Q$cert\E.*'\Q$own\E'.*allowed_clients/, "$cert: and what is expected");
}
my $none = answer_of(ask_tls('', tmp() . '/none'), tmp() . '/none');
like($none->{err}, qr/alert certificate required/, 'no certificate: TLS says that one is required') or diag(json_text($none));
# The same names, but of a CA of their own: on the way in and (below) of the hyper that is asked
my %evil = map { $_ => tmp() . "/evil.$_" } qw(crt key);
is((run_program([ 'openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', $evil{key}, '-out', $evil{crt}, '-subj', "/CN=$own",
	'-addext', "subjectAltName=DNS:$own", '-days', '2' ]))[0], 0, 'a certificate of another CA');
my ($code, undef, $err) = run_program([ 'curl', '-sS', '--noproxy', '*', '--max-time', 20, '--cacert', "$dir/root.crt", '--cert', $evil{crt}, '--key', $evil{key},
	'-H', 'Content-Type: application/json', '-d', '{}', '--connect-to', "$own:$p->{rpc}:127.0.0.1:$p->{rpc}", "https://$own:$p->{rpc}/jsonrpc" ]);
like($err, qr/alert unknown ca/, 'another CA with the right name: refused') or diag($code);
is($p->told(0.3), undef, 'B was told nothing of these');

# Somebody else at the hyper's address: the name on the certificate and who signed it decide
for my $case ([ 'a hyper with another name', "$dir/demo-app.crt", "$dir/demo-app.key" ], [ 'a hyper of another CA', @evil{qw(crt key)} ]) {
	my ($name, $cert, $key) = @$case;
	$pid = ask_tls($own, "$file.2");
	if (my $s = $p->{hyper}->accept) {
		require IO::Socket::SSL;
		IO::Socket::SSL->start_SSL($s, SSL_server => 1, SSL_cert_file => $cert, SSL_key_file => $key);
		close $s;
	}
	$r = answer_of($pid, "$file.2");
	is($r->{error}{code}, -32603, "$name is not asked") or diag(json_text($r));
	is($r->{error}{data}{reason}, 'tls', "$name: reason tls");
}
is($p->{d}->stop, 0, 'it stops cleanly');
hyper_done();
