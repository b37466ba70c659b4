# HyperSd.pm - one service directory for tests: its settings, its clients, records signed and bent in every way
#
# The structured hash here is written from protocol.md 6.3 on its own, so that the programs are checked by a second
# reading of it.
package HyperSd;
use strict;
use warnings;
use B ();
use Digest::SHA qw(sha256 sha256_hex);
use Exporter 'import';
use HyperTest;
use POSIX qw(floor);
use Time::HiRes ();

our @EXPORT = qw(sd_new rechash_hex created_at);

# Settings for `sd run` and for `hyper sd` in the test's folder; starts nothing.
# Options: limits => tcp_rate_limits in libconfig, store => path, metrics => bind address.
sub sd_new {
	my (%opt) = @_;
	my $c = certs();
	my $self = bless { dir => tmp() . '/sd' . ($opt{name} // ''), %opt }, 'HyperSd';
	$self->{port} = free_port();
	$self->{url} = "https://sd-1:$self->{port}/jsonrpc";
	$self->{store} //= "$self->{dir}/store/sd.sqlite";
	write_file("$self->{dir}/settings/sd.cfg", qq(
jsonrpc_server = { bind_address = "localhost:$self->{port}"; tls = { ca_certificate_files = [ "$c/root.crt" ];
	certificate_file = "$c/sd-1.crt"; key_file = "$c/sd-1.key"; };
	) . ($opt{limits} ? "tcp_rate_limits = $opt{limits};" : '') . qq( };
store = { type = "sqlite"; path = "$self->{store}"; };
directory = { ca_certificate_files = [ "$c/root.crt" ]; ca_intermediate_certificate_files = [ "$c/intermediate.crt" ]; };
) . ($opt{metrics} ? "metrics = { bind_address = \"$opt{metrics}\"; };" : ''));
	return $self;
}

# Settings of an operator's `hyper`, whose signing certificate is $cert (default: its own). Returns their folder.
sub hyper_settings {
	my ($self, $name, $cert) = @_;
	my $c = certs();
	$cert //= "$name-sign";
	write_file("$self->{dir}/$cert/hyper.cfg", qq(
name = "$name";
directory = { type = "api"; settings = { endpoints = [ "https://localhost:$self->{port}/jsonrpc" ]; server_names = [ "sd-1" ];
	ca_certificate_files = [ "$c/root.crt" ]; ca_intermediate_certificate_files = [ "$c/intermediate.crt" ];
	jsonrpc_client = { tls = { ca_certificate_files = [ "$c/root.crt" ]; certificate_file = "$c/$name.crt";
	key_file = "$c/$name.key"; }; }; }; };
signing = { name = "$name"; certificate_file = "$c/$cert.crt"; key_file = "$c/$cert.key";
	ca_certificate_files = [ "$c/root.crt" ]; ca_intermediate_certificate_files = [ "$c/intermediate.crt" ]; };
channels = ( { name = "applications"; type = "jsonrpc_server"; settings = { bind_address = "localhost:0"; }; } );
));
	return "$self->{dir}/$cert";
}

# Starts (again). A wrapper command may stand before the program.
sub start_sd {
	my ($self, %opt) = @_;
	$self->{daemon} = HyperTest::start('sd' . ($self->{name} // '') . ++$self->{starts},
		[ @{ $opt{wrap} // [] }, program('sd'), 'run' ],
		env => { SD_SETTINGS => "$self->{dir}/settings", %{ $opt{env} // {} } }, %opt);
	return $self->{daemon};
}

sub call { my ($self, $method, $params, %opt) = @_; return rpc($self->{url}, $method, $params, cert => 'hd-1', %opt) }

# `hyper sd VERB ...` as an operator: (exit status, stdout, stderr)
sub cli {
	my ($self, $who, @args) = @_;
	my ($name, $cert) = ref $who ? @$who : ($who, undef);
	return run_program([ program('hyper'), 'sd', @args ], env => { HYPER_SETTINGS => $self->hyper_settings($name, $cert) });
}

# All records the directory serves, page by page.
sub records {
	my ($self) = @_;
	my @all;
	while (1) {
		my $page = $self->call('getRecords', { after => @all ? $all[-1]{hash} : '' })->{result} or return undef;
		return \@all if !@$page;
		push @all, @$page;
	}
}

# protocol.md 6.3 for the values that tests use: texts, lists, maps, numbers that are marked by a reference to them.
sub emit {
	my ($v) = @_;
	return '' if !defined $v;
	if (ref $v eq 'HASH') {
		my $out = emit('map');
		for my $key (sort keys %$v) {
			my $value = emit($v->{$key});
			$out .= $value . emit($key) if length $value;
		}
		return $out;
	}
	if (ref $v eq 'ARRAY') {
		return '' if !@$v;
		return emit('list') . join '', map { emit("$_") . emit($v->[$_]) } 0 .. $#$v;
	}
	return '' if $v eq '';
	return "string$v";
}

sub rechash_hex { return sha256_hex(emit($_[0])) }

# RFC 3339 of a time (seconds, default now), nanoseconds made unique
my $unique = 0;
sub created_at {
	my ($at) = @_;
	$at //= Time::HiRes::time();
	my @t = gmtime floor($at);
	my $fraction = sprintf '%06d%03d', ($at - floor($at)) * 1e6, ++$unique % 1000;
	$fraction =~ s/0+$//;
	return sprintf('%04d-%02d-%02dT%02d:%02d:%02d', $t[5] + 1900, $t[4] + 1, @t[3, 2, 1, 0]) . (length $fraction ? ".$fraction" : '') . 'Z';
}

# Signs any value as an operator: {r, s, c}.
sub signature {
	my ($self, $who, $data) = @_;
	my $file = write_file(tmp() . '/to-sign.json', json_text($data));
	my ($status, $out, $err) = $self->cli($who, 'sign', $file);
	die "hyper sd sign failed: $err" if $status;
	return json_value($out)->{signature};
}

# A signed record. Options: parent (default: the tip), who (default: hd-1), at (seconds), name, section, data.
sub record {
	my ($self, %opt) = @_;
	my $tip = exists $opt{parent} ? undef : $self->call('getTip')->{result};
	my $record = { name => $opt{name} // 'op-1', section => $opt{section} // 'groups', data => $opt{data} // ['g'],
		created_at => $opt{created_at} // created_at($opt{at}) };
	my $parent = $opt{parent} // ($tip ? $tip->{hash} : '');
	my $hash = rechash_hex($record);
	my $signature = $self->signature($opt{who} // 'hd-1', { hash => $hash, parent_hash => $parent, record => $record });
	return { parent_hash => $parent, hash => $hash, signature => $signature, record => $record };
}

sub submit { my ($self, @records) = @_; return $self->call('submitRecords', { records => \@records }) }

1;
