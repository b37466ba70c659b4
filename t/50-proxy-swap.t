#!/usr/bin/perl
# Guards: the certificates of both JSON-RPC sides are swapped, and the program is executed anew, under a steady load of brokerings over TLS: none fails, those before meet the old certificate, those after the new one.
use strict;
use warnings;
use HyperTest;
use IO::Socket::SSL;
use POSIX ();
use ProxyTest;
use Test::More;
use Time::HiRes qw(time);

my $socket = tmp() . '/admin.sock';
my $p = proxy(workers => 1, tls => 1, start => 0, log_level => 'info', token_timeout => 60, outer => qq(admin_socket = "$socket";\n), more => 'max_tokens_per_operator = 0;');
my ($c, $log) = (certs(), tmp() . '/calls');
my $own = 'public-proxy-1.ga';
my @certs = ($own, 'hd-1');

sub put { my ($of) = @_; system('cp', "$c/$of.crt", "$p->{dir}/own.crt") == 0 && system('cp', "$c/$of.key", "$p->{dir}/own.key") == 0 or die; chmod 0600, "$p->{dir}/own.key"; return }
sub verb { return $p->verb(@_) }

put($own);
$p->{settings} =~ s/\Q$c\E\/public-proxy-1\.ga\.(crt|key)/$p->{dir}\/own.$1/g;
write_file("$p->{dir}/001.cfg", $p->{settings});
$p->launch;

# One brokering with connections of its own on both sides: the fingerprints of the proxy's certificate there and here.
sub call {
	my $s = IO::Socket::SSL->new(PeerAddr => '127.0.0.1', PeerPort => $p->{rpc}, SSL_ca_file => "$c/root.crt", SSL_verifycn_scheme => 'none',
		SSL_cert_file => "$c/$own.crt", SSL_key_file => "$c/$own.key", Timeout => 30) or return "connect: $SSL_ERROR $!";
	my $body = json_text({ jsonrpc => '2.0', method => 'requestConnection', params => { to => 'hd-2', channel => 'grpc_server', _client => client() }, id => 'a1' });
	send_all($s, "POST /jsonrpc HTTP/1.1\r\nHost: p\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: " . length($body) . "\r\n\r\n$body");
	my $told = $p->told(30) or return 'the proxy told nothing';
	my $client = $told->{sock}->get_fingerprint('sha256');
	$told->answer;
	my $r = (bless { sock => $s }, 'ProxyTest::Ask')->answer(30);
	return 'no token: ' . json_text($r) if !$r->{result}{token};
	return 'ok ' . $s->get_fingerprint('sha256') . " $client";
}

# Calls until it is told to end: "begin end outcome" each.
my $load = fork // die "fork: $!";
if (!$load) {
	my $end = 0;
	$SIG{TERM} = sub { $end = 1 };
	open my $out, '>', $log or POSIX::_exit(1);
	$out->autoflush(1);
	while (!$end) {
		my $begin = time;
		my $outcome = call();
		printf $out "%.6f %.6f %s\n", $begin, time, $outcome;
	}
	POSIX::_exit(0);
}
sub calls { my @lines = -e $log ? split /\n/, read_file($log) : (); return @lines } # their number where one is asked for, 0 before the first
sub more_calls { my ($n) = @_; my $was = calls(); return wait_until { calls() >= $was + $n } 60 }

my @swaps;
ok(more_calls(5), 'the load runs');
for my $round (1 .. 6) {
	my $to = $certs[ $round % 2 ];
	put($to);
	my $before = time;
	my ($code, $out, $err) = verb('reload');
	push @swaps, [ $before, time, $to ];
	is("$code $err", '0 ', "round $round: another certificate");
	ok(more_calls(5), "round $round: the load goes on");
	if ($round % 2 == 0) {
		($code, $out, $err) = verb('upgrade');
		is("$code $out$err", "0 upgraded\n", "round $round: the program anew");
		ok(more_calls(5), "round $round: the load goes on with it");
	}
}
kill 'TERM', $load;
waitpid $load, 0;

my %fp = map { my $of = $_; my $x = Net::SSLeay::PEM_read_bio_X509(do { my $b = Net::SSLeay::BIO_new_file("$c/$of.crt", 'r'); $b }); ($of => 'sha256$' . lc(Net::SSLeay::X509_get_fingerprint($x, 'sha256') =~ s/://gr)) } @certs;
my ($failed, $wrong, $n) = ('', '', 0);
for my $line (calls()) {
	my ($begin, $end, $outcome) = $line =~ /^(\S+) (\S+) (.*)$/ or next;
	$n++;
	if ($outcome !~ /^ok (\S+) (\S+)$/) {
		$failed .= "$outcome\n";
		next;
	}
	my ($server, $client) = ($1, $2);
	my ($now, $unsure) = ($own, 0);
	for my $swap (@swaps) {
		$now = $swap->[2] if $begin > $swap->[1];
		$unsure = 1 if $begin <= $swap->[1] && $end >= $swap->[0];
	}
	$wrong .= "$line\n" if !$unsure && ($server ne $fp{$now} || $client ne $fp{$now});
}
is($failed, '', "of $n brokerings none failed");
is($wrong, '', 'each met the certificate of its time, on both sides');
cmp_ok($n, '>', 40, 'there was load');
is($p->{d}->stop, 0, 'it stops');
hyper_done();
